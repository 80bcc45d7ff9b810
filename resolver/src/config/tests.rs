use super::*;

fn write(folder: &Path, change: impl FnOnce(String) -> String) -> PathBuf {
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(vec!["ca.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(folder.join("sds.key"), "ab".repeat(32)).unwrap();
    let text = include_str!("../../resolver.example.toml")
        .replace("/etc/bouncer/vault-ca.pem", folder.join("ca.pem").to_str().unwrap())
        .replace("/etc/bouncer/payments-ca.pem", folder.join("ca.pem").to_str().unwrap())
        .replace("/run/bouncer/sds.key", folder.join("sds.key").to_str().unwrap());
    let path = folder.join("resolver.toml");
    std::fs::write(&path, change(text)).unwrap();
    path
}

#[test]
fn the_example_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(&write(folder.path(), |text| text), false).unwrap();
    assert_eq!(config.bouncer.as_str(), "payments-east");
    assert_eq!(config.rails.clusters.len(), 1);
    assert_eq!(config.intercept.mode, 0o660);
}

#[test]
fn every_fault_is_named_at_once_and_no_value_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), |text| {
        text.replace("payments-east", "NOT A NAME")
            .replace("payments.internal:8443", "no-port")
            .replace("mode = \"0660\"", "mode = \"0666\"")
            .replace("https://kms", "http://kms")
            + "\n[limits]\nrecheck_s = 0\n"
    });
    let error = Config::load(&path, false).unwrap_err().to_string();
    for key in ["bouncer", "rails.cluster[0].upstream", "intercept.mode", "kms.kms_endpoint", "limits.recheck_s"] {
        assert!(error.contains(&format!("  {key}: ")), "{key} is missing in:\n{error}");
    }
    assert!(!error.contains("NOT A NAME") && !error.contains("no-port"), "{error}");
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(&write(folder.path(), |text| format!("surprise = 1\n{text}")), false).unwrap_err();
    assert!(error.to_string().contains("line 1: unknown field `surprise`"), "{error}");
}

#[test]
fn plain_http_needs_dev() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), |text| text.replace("https://kms", "http://kms"));
    assert!(Config::load(&path, false).is_err());
    assert!(Config::load(&path, true).is_ok());
}

#[test]
fn each_region_may_have_an_endpoint_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let load = |endpoints: &str, dev| {
        let path =
            write(folder.path(), |text| text.replace("\n[vault]", &format!("\nkms_endpoints = {endpoints}\n[vault]")));
        Config::load(&path, dev)
    };
    let kms = load("{ ca-central-1 = \"https://vpce.example\" }", false).unwrap().kms.unwrap();
    assert_eq!(kms.endpoint("ca-central-1"), Some("https://vpce.example"));
    assert_eq!(kms.endpoint("eu-west-1"), Some("https://kms.ca-central-1.amazonaws.com"));
    for (endpoints, rule) in [
        ("{ ca-central-1 = \"http://vpce.example\" }", "kms.kms_endpoints.ca-central-1: must begin with https://"),
        ("{ ca-cental-1 = \"https://x\" }", "kms.kms_endpoints.ca-cental-1: must be the region of a key"),
    ] {
        let error = load(endpoints, false).unwrap_err().to_string();
        assert!(error.contains(rule), "{error}");
    }
    assert!(load("{ ca-central-1 = \"http://vpce.example\" }", true).is_ok());
}

#[test]
fn the_sandbox_is_on_and_only_dev_turns_it_off() {
    let folder = tempfile::tempdir().unwrap();
    let with = |line: &str| write(folder.path(), |text| text.replace("sandbox = \"best-effort\"", line));
    let sandbox = |line: &str, dev| Config::load(&with(line), dev).map(|config| config.sandbox);
    assert_eq!(sandbox("", false).unwrap(), Sandbox::BestEffort);
    assert_eq!(sandbox("sandbox = \"enforce\"", false).unwrap(), Sandbox::Enforce);
    assert_eq!(sandbox("sandbox = \"off\"", true).unwrap(), Sandbox::Off);
    for line in ["sandbox = \"off\"", "sandbox = \"none\""] {
        let error = sandbox(line, false).unwrap_err().to_string();
        assert!(error.contains("  process.sandbox: must be"), "{error}");
    }
}

#[test]
fn a_mount_has_one_engine() {
    let folder = tempfile::tempdir().unwrap();
    let second =
        "vault_mounts = [\n    { namespace = \"root/\", mount = \"secret\", engine = \"kv1\", dedicated = true },";
    let path = write(folder.path(), |text| text.replace("vault_mounts = [\n", second));
    let error = Config::load(&path, false).unwrap_err().to_string();
    assert!(error.contains("rails.vault_mounts[1]: "), "{error}");
}

#[test]
fn vaults_faults_are_named_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), |text| {
        text.replace("https://vault-0.example.org:8200", "http://vault-0.example.org:8200")
            .replace("https://vault-1.example.org:8200", "https://user@vault-1.example.org:8200/path")
            .replace("login = \"jwt\"", "login = \"cert\"")
            .replace("deadline_ms = 400", "deadline_ms = 900")
            .replace("mount = \"secret\", engine", "mount = \"a/b\", engine")
            .replace("names = [\"payments-east.example.org\"]", "names = [\"*.example.org\"]")
    });
    let error = Config::load(&path, false).unwrap_err().to_string();
    for key in [
        "vault.addresses[0]",
        "vault.addresses[1]",
        "vault.audience",
        "vault.deadline_ms",
        "rails.vault_mounts[0].mount",
        "rails.vault_mounts[1].names[0]",
        "rails.cluster[0].vault_mounts[0]",
    ] {
        assert!(error.contains(&format!("  {key}: ")), "{key} is missing in:\n{error}");
    }
}

const IAM: &str = "iam = { ca_file = '/etc/bouncer/payments-ca.pem', server_name = 'control-plane.example.org', \
                   audience = 'control-plane.example.org', region = 'ca-central-1' }";

/// The example, for a resolver that enrols by its IAM role.
fn enrolling(folder: &Path, change: impl FnOnce(String) -> String) -> PathBuf {
    let ca = folder.join("ca.pem");
    write(folder, |text| {
        let mut file: toml::Table = text.parse().unwrap();
        file.remove("identity");
        file.remove("vault");
        for (section, keys) in [("bridge", &["server_id"][..]), ("kms", &["role_arn", "audience"])] {
            keys.iter().for_each(|key| drop(file[section].as_table_mut().unwrap().remove(*key)));
        }
        file["kms"].as_table_mut().unwrap().insert("credentials".to_owned(), "default-chain".into());
        let iam: toml::Table = IAM.replace("/etc/bouncer/payments-ca.pem", ca.to_str().unwrap()).parse().unwrap();
        file["bridge"].as_table_mut().unwrap().extend(iam);
        change(toml::to_string(&file).unwrap())
    })
}

#[test]
fn a_resolver_that_enrols_needs_no_workload_api_and_can_use_nothing_that_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(&enrolling(folder.path(), |text| text), false).unwrap();
    let BridgeLogin::Iam(login) = &config.bridge.login else { panic!("an SVID") };
    assert_eq!(login.sts_host.as_str(), "sts.ca-central-1.amazonaws.com");
    assert!(config.workload_api.is_none() && config.uses_default_chain());

    let broken = |change: &dyn Fn(String) -> String| {
        Config::load(&enrolling(folder.path(), change), false).unwrap_err().to_string()
    };
    for (good, bad, key) in [
        ("[bridge]", "[identity]\nworkload_api = 'unix:///run/a.sock'\n[bridge]", "identity"),
        ("caller = \"peer\"", "caller = \"own-svid\"", "intercept.caller"),
        (
            "credentials = \"default-chain\"",
            "credentials = \"spiffe\"\nrole_arn = \"arn:aws:iam::1:role/a\"",
            "kms.credentials",
        ),
        ("[bridge]", "[bridge]\nserver_id = 'spiffe://example.org/cp'", "bridge.server_id"),
        ("region = \"ca-central-1\"", "region = \"canada\"", "bridge.iam.region"),
        ("audience = \"control-plane.example.org\"", "audience = \"two words\"", "bridge.iam.audience"),
        ("server_name = \"control-plane.example.org\"", "server_name = \"-\"", "bridge.iam.server_name"),
        (
            "region = \"ca-central-1\"",
            "region = \"ca-central-1\"\nsts_endpoint = 'http://sts.test'",
            "bridge.iam.sts_endpoint",
        ),
        (
            "region = \"ca-central-1\"",
            "region = \"ca-central-1\"\nsts_endpoint = 'https://a@sts.test'",
            "bridge.iam.sts_endpoint",
        ),
        (
            // A URL's parser takes it; the control plane does not.
            "region = \"ca-central-1\"",
            "region = \"ca-central-1\"\nsts_endpoint = 'https://sts..test'",
            "bridge.iam.sts_endpoint",
        ),
    ] {
        let error = broken(&|text| {
            assert!(text.contains(good), "{good} in {text}");
            text.replacen(good, bad, 1)
        });
        assert!(error.contains(&format!("  {key}: ")), "{key}: {error}");
    }
    // Neither is nothing.
    let nobody = write(folder.path(), |text| {
        text.replace("server_id = \"spiffe://example.org/bouncer/control-plane\"", "")
            .replace("[identity]\n", "")
            .lines()
            .filter(|line| !line.starts_with("workload_api"))
            .collect::<Vec<_>>()
            .join("\n")
    });
    let error = Config::load(&nobody, false).unwrap_err().to_string();
    assert!(error.contains("  identity: ") && error.contains("  bridge.server_id: "), "{error}");
}

#[test]
fn traces_go_over_tls_or_under_dev_to_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let load = |endpoint: &str, dev| {
        let section = format!("\n[telemetry]\notlp_endpoint = \"{endpoint}\"\n");
        Config::load(&write(folder.path(), |text| text + &section), dev).map(|config| config.telemetry.is_some())
    };
    assert!(load("https://collector.example.org:4317", false).unwrap());
    assert!(load("http://127.0.0.1:4317", true).unwrap());
    for (bad, dev) in [
        ("http://127.0.0.1:4317", false),
        ("http://collector.example.org:4317", true),
        ("https://user:word@collector.example.org:4317", false),
        ("https://collector.example.org:4317/v1/traces", false),
        ("collector.example.org:4317", false),
    ] {
        let error = load(bad, dev).unwrap_err().to_string();
        assert!(error.contains("telemetry.otlp_endpoint: must be https") && !error.contains(bad), "{error}");
    }
}
