//! Each single deviation of a call is refused, and the same call without it is taken.

use super::*;

const OFFICIAL: &str = "sts.ca-central-1.amazonaws.com";

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn call() -> EnrollRequest {
    EnrollRequest {
        host: OFFICIAL.to_owned(),
        region: "ca-central-1".to_owned(),
        amz_date: "20260301T120000Z".to_owned(),
        access_key_id: "ASIAQWERTYUIOPASDFGH".to_owned(),
        signature: "0f".repeat(32),
        security_token: "IQoJb3JpZ2luX2VjE+/=".to_owned(),
    }
}

fn read(edit: impl FnOnce(&mut EnrollRequest), hosts: &[&str]) -> Result<SignedCall, CallFault> {
    let mut request = call();
    edit(&mut request);
    let hosts: Vec<StsHost> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    SignedCall::read(request, &hosts, now())
}

fn fault(edit: impl FnOnce(&mut EnrollRequest)) -> Option<CallFault> {
    read(edit, &[]).err()
}

#[test]
fn a_good_call_becomes_one_request_and_no_other() {
    let call = read(|_| {}, &[]).ok().unwrap();
    assert_eq!(call.url(), format!("https://{OFFICIAL}/"));
    let headers = call.headers(&"control-plane.example.org".parse().unwrap(), &"ab".repeat(32)).unwrap();
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let wanted =
        ["authorization", "content-type", "x-amz-date", "x-amz-security-token", "x-bouncer-audience", "x-bouncer-key"];
    assert_eq!(names, wanted);
    assert_eq!(
        headers[header::AUTHORIZATION],
        format!(
            "AWS4-HMAC-SHA256 Credential=ASIAQWERTYUIOPASDFGH/20260301/ca-central-1/sts/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-bouncer-audience;x-bouncer-key, \
             Signature={}",
            "0f".repeat(32)
        )
    );
    // What is secret of it is not in a `Debug`.
    let shown = format!("{headers:?}");
    assert!(!shown.contains("IQoJb3") && !shown.contains("0f0f"), "{shown}");

    let long_lived = read(|call| call.security_token.clear(), &[]).ok().unwrap();
    let headers = long_lived.headers(&"a".parse().unwrap(), "b").unwrap();
    assert!(!headers.contains_key("x-amz-security-token"));
    assert!(!headers[header::AUTHORIZATION].to_str().unwrap().contains("security-token"));
}

#[test]
fn only_an_allowed_sts_is_asked() {
    for host in [
        "sts.eu-west-1.amazonaws.com",
        "sts.amazonaws.com",
        "kms.ca-central-1.amazonaws.com",
        "sts.ca-central-1.amazonaws.com.example.org",
        "xsts.ca-central-1.amazonaws.com",
        "sts.ca-central-1.amazonaws.com:8443",
        "169.254.169.254",
        "localhost:8080",
    ] {
        assert_eq!(fault(|call| call.host = host.to_owned()), Some(CallFault::Host), "{host}");
    }
    // Where servers are listed, these and no others; the region is then the signature's own affair.
    let listed = ["sts.internal:8443", "vpce-1-sts.eu-west-1.vpce.amazonaws.com"];
    assert!(read(|call| call.host = "sts.internal:8443".to_owned(), &listed).is_ok());
    assert_eq!(read(|_| {}, &listed).err(), Some(CallFault::Host));
    assert_eq!(read(|call| call.host = "sts.internal".to_owned(), &listed).err(), Some(CallFault::Host));
}

#[test]
fn a_host_is_nothing_but_a_host() {
    for host in [
        "",
        "user@sts.ca-central-1.amazonaws.com",
        "sts.ca-central-1.amazonaws.com/x",
        "sts.ca-central-1.amazonaws.com:443",
        "sts.ca-central-1.amazonaws.com\r\nx: y",
    ] {
        assert_eq!(fault(|call| call.host = host.to_owned()), Some(CallFault::Form("host")), "{host:?}");
    }
}

#[test]
fn each_part_has_its_form() {
    let form = |part| Some(CallFault::Form(part));
    for region in ["", "ca-central", "CA-central-1", "ca-central-1/sts", "../x-1", "ca_central-1"] {
        assert_eq!(fault(|call| call.region = region.to_owned()), form("region"), "{region}");
    }
    for key in ["", "ASIASHORT", "ASIAQWERTYUIOPASDFGh", "ASIAQWERTYUIOPASDFG/", &"A".repeat(129)] {
        assert_eq!(fault(|call| call.access_key_id = key.to_owned()), form("access_key_id"), "{key}");
    }
    for signature in [String::new(), "0f".repeat(31), "0f".repeat(33), "0F".repeat(32), "0g".repeat(32)] {
        assert_eq!(fault(|call| call.signature.clone_from(&signature)), form("signature"), "{signature}");
    }
    for token in ["a b".to_owned(), "a\r\nx-bouncer-key: b".to_owned(), "a,b".to_owned(), "a".repeat(TOKEN_LIMIT + 1)] {
        assert_eq!(fault(|call| call.security_token.clone_from(&token)), form("security_token"));
    }
    assert_eq!(fault(|call| call.security_token = "a".repeat(TOKEN_LIMIT)), None);
    for date in [
        "",
        "20260301T120000",
        "2026-03-01T12:00:00Z",
        "20260301 120000Z",
        "20261301T120000Z",
        "20260301T250000Z",
        "20260301T120000Zx",
        "+0260301T120000Z",
        "20260301T1200é0",
    ] {
        assert_eq!(fault(|call| call.amz_date = date.to_owned()), form("amz_date"), "{date}");
    }
}

#[test]
fn a_signature_is_of_the_last_five_minutes() {
    for good in ["20260301T115500Z", "20260301T120500Z", "20260301T120000Z"] {
        assert_eq!(fault(|call| call.amz_date = good.to_owned()), None, "{good}");
    }
    for stale in ["20260301T115459Z", "20260301T120501Z", "20250301T120000Z", "20270301T120000Z"] {
        assert_eq!(fault(|call| call.amz_date = stale.to_owned()), Some(CallFault::Stale), "{stale}");
    }
}
