//! The shipped list of capabilities is what the module uses, and nothing else.

use std::collections::BTreeSet;

/// The names that stand between these two marks, in each line where both are.
fn names(text: &str, before: &str, after: &str) -> BTreeSet<String> {
    let name = |line: &str| Some(line.split_once(before)?.1.split_once(after)?.0.trim().to_owned());
    text.lines().filter_map(name).collect()
}

#[test]
fn every_import_and_export_is_listed_and_nothing_else() {
    let listed = names(include_str!("../../capabilities.yaml"), "    proxy_", ": {}");
    let mut used = names(include_str!("../../src/host/envoy.rs"), "    fn proxy_", "(");
    used.append(&mut names(include_str!("../../src/abi.rs"), "pub extern \"C\" fn proxy_", "("));
    // Envoy needs these two of every module, and lists neither.
    assert!(used.remove("abi_version_0_2_1") && used.remove("on_memory_allocate"));
    assert_eq!(listed, used);
}

#[test]
fn what_could_read_the_name_of_the_secret_is_not_listed() {
    let listed = names(include_str!("../../capabilities.yaml"), "    proxy_", ": {}");
    for forbidden in
        ["get_property", "call_foreign_function", "on_log", "on_done", "get_shared_data", "grpc_call", "grpc_stream"]
    {
        assert!(!listed.contains(forbidden), "{forbidden}");
    }
    assert!(!listed.iter().any(|name| name.starts_with("on_response") || name.starts_with("on_foreign")));
}
