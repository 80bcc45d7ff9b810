//! Long lists, and what several bouncers report: nothing is left out without a word, and nothing looks alike that is not.

use crate::harness::{Desk, PATH, altering, envelope, resource, sign_in, with_bouncer};
use crate::pages::look;
use bouncer_tests::browser::Browser;
use bouncer_tests::{Fault, Result};
use serde_json::{Value, json};

/// Lists of one item become lists without an end.
const ENDLESS: &str = "
    const [list, query] = path.split('?');
    if (!['/v1/bouncers', '/v1/protected-resources', '/v1/crypto/envelope-secrets'].includes(list)) return undefined;
    const parameters = new URLSearchParams(query);
    const from = Number(parameters.get('cursor') ?? 0);
    const [item] = (await ask(list)).items;
    const name = 'name' in item ? 'name' : 'logical_path';
    const items = Array.from({length: 500}, (_, at) => ({...item, [name]: `${item[name]}-${from + at}`}));
    return {items, next_cursor: String(from + 500)};";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_cut_off_says_so() -> Result<()> {
    let desk = Desk::signed_in("console-cut-off").await?;
    let api = with_bouncer(&desk).await?;
    let browser = &desk.browser;
    api.post("/v1/protected-resources", &resource("payments-api")).await?.success()?;
    api.register_envelope(&envelope(PATH)).await?;
    let pages = [("bouncers", "bouncers"), ("resources", "protected resources"), ("secrets", "envelope secrets")];
    for (page, _) in pages {
        desk.visit(page).await?;
        assert!(!browser.text().await?.contains("there are more"), "{page}, with all that there is");
    }
    altering(browser, ENDLESS).await?;
    for (page, what) in pages {
        desk.visit(page).await?;
        browser.sees(&format!("Only the first 5,000 {what} are shown; there are more.")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_proposal_that_waits_is_shown() -> Result<()> {
    let desk = Desk::asking_for_a_second_person("console-many-proposals").await?;
    let api = desk.api()?;
    for number in 0..201 {
        let body =
            json!({"name": format!("b{number}"), "spiffe_id": format!("spiffe://example.org/bouncer/b{number}")});
        assert_eq!(api.post("/v1/bouncers", &body).await?.status, 202);
    }
    sign_in(&desk.browser, &desk.plane).await?;
    desk.visit("proposals").await?;
    let cards = "return document.querySelectorAll('.card[data-proposal]').length";
    assert_eq!(desk.browser.script(cards, &[]).await?, 201);
    Ok(())
}

/// What is said to be in effect of a credential, on the page that is shown.
async fn in_effect(browser: &Browser, path: &str, text: &str) -> Result<()> {
    let row = "return [...document.querySelectorAll('.table tbody tr')].some((row) => \
               row.querySelector('th').textContent === arguments[0] && \
               row.querySelector('[data-label=\"In effect\"]').innerText.replace(/\\s+/g, ' ') === arguments[1])";
    browser.until(&format!("{path}: {text}"), row, &[path.into(), text.into()]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_and_not_what_is_saved_is_seen_however_much_is_saved() -> Result<()> {
    let desk = Desk::signed_in("console-many-secrets").await?;
    let api = with_bouncer(&desk).await?;
    let browser = &desk.browser;
    for number in 0..500 {
        api.register_envelope(&envelope(&format!("a/{number:03}"))).await?;
    }
    // Behind those of the first call.
    for _ in 0..2 {
        api.register_envelope(&envelope(PATH)).await?;
    }
    api.register_envelope(&envelope(&format!("{PATH}/below"))).await?;
    altering(
        browser,
        &format!(
            "const report = (bouncer) => {{
                 const use = (logical_path, generation) => ({{logical_path, generation}});
                 bouncer.bridge.secrets = [use('{PATH}', 1), use('a/007', 1), use('gone/path', 3)];
                 return bouncer;
             }};
             if (path === '/v1/bouncers/payments-east') return report(await ask(path));
             if (path !== '/v1/policy-bridge/health') return undefined;
             const all = await ask(path);
             return {{...all, items: all.items.map(report)}};"
        ),
    )
    .await?;
    for page in ["overview", "bouncers/payments-east"] {
        desk.visit(page).await?;
        in_effect(browser, PATH, "generation 1 saved: generation 2").await?;
        in_effect(browser, "a/007", "generation 1").await?;
        in_effect(browser, "gone/path", "generation 3 not saved").await?;
    }
    assert_eq!(look(browser, "bouncer-differs").await?, Vec::<String>::new());
    browser.resize(1280, 900).await?;

    // Each of the 504 changes is listed once, however often one asks for more.
    desk.visit("changes").await?;
    let twice = "const older = [...document.querySelectorAll('button')].find((one) => one.innerText === 'Show older'); \
                 older.click(); older.click()";
    browser.script(twice, &[]).await?;
    let rows = "const rows = [...document.querySelectorAll('.table tbody tr')].map((row) => row.innerText); \
                return rows.length > 100 && [rows.length, new Set(rows).size]";
    assert_eq!(browser.until("older ones", rows, &[]).await?, json!([200, 200]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_ends_when_the_first_of_its_uses_does() -> Result<()> {
    let desk = Desk::signed_in("console-earliest").await?;
    let api = with_bouncer(&desk).await?;
    let browser = &desk.browser;
    let stored = api.register_envelope(&envelope(PATH)).await?;
    let id = stored["id"].as_str().unwrap_or_default();
    altering(
        browser,
        &format!(
            "if (!path.startsWith('/v1/bouncers?')) return undefined;
             const {{items: [item]}} = await ask(path);
             const reports = (name, not_after) => ({{...item, name, bridge: {{...item.bridge, secrets: [{{logical_path: '{PATH}', generation: 1, not_after}}]}}}});
             return {{items: [reports('a', '2041-01-01T00:00:00Z'), reports('b', '2040-01-01T00:00:00Z'), reports('c', '2042-01-01T00:00:00Z')]}};"
        ),
    )
    .await?;
    let fact = "return [...document.querySelectorAll('.facts dt')].find((one) => one.textContent === 'Expires')\
                .parentElement.querySelector('time').dateTime";
    let cell = "return document.querySelector('.table tbody [data-label=Expires] time').dateTime";
    for (page, end) in [(format!("secrets/{id}"), fact), ("secrets".to_owned(), cell)] {
        desk.visit(&page).await?;
        assert_eq!(browser.script(end, &[]).await?, "2040-01-01T00:00:00Z", "{page}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_who_are_limited_are_none_that_last() -> Result<()> {
    let desk = Desk::signed_in("console-limited").await?;
    desk.visit("tokens").await?;
    assert!(!desk.browser.text().await?.contains("No administrator has a token that lasts"), "there is one");
    let limited = "
        if (!path.startsWith('/v1/tokens')) return undefined;
        const all = await ask(path);
        return {...all, items: all.items.map((item) => ({...item, path_prefixes: ['payments/*']}))};";
    altering(&desk.browser, limited).await?;
    desk.visit("tokens").await?;
    desk.browser.sees("No administrator has a token that lasts").await
}

/// An audit that grows as the page's `newest` does, in parts of what is asked for; its cursors are numbers.
const GROWING: &str = "
    const [list, query] = path.split('?');
    if (list !== '/v1/audit/events') return undefined;
    const parameters = new URLSearchParams(query);
    const first = Number(parameters.get('cursor') ?? window.newest ?? 60);
    const limit = Number(parameters.get('limit'));
    const event = (number) => ({
        id: String(number), bouncer: 'payments-east', sequence: number, time: '2026-01-01T00:00:00Z',
        received_at: '2026-01-01T00:00:00Z', outcome: 'deny', count: 1, generation: 0,
    });
    const items = Array.from({length: Math.min(limit, first)}, (_, at) => event(first - at));
    return {items, ...(first > limit ? {next_cursor: String(first - limit)} : {})};";

/// The numbers of the events that are shown, from the newest on.
async fn shown(browser: &Browser) -> Result<Vec<u64>> {
    let rows = "return [...document.querySelectorAll('[data-event]')].map((row) => row.dataset.event)";
    let rows = browser.script(rows, &[]).await?;
    let number = |row: &Value| row.as_str()?.parse().ok();
    rows.as_array().into_iter().flatten().map(number).collect::<Option<_>>().ok_or_else(|| Fault::new("no rows"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_has_no_hole_where_its_tail_was_cut_and_no_row_twice() -> Result<()> {
    let desk = Desk::signed_in("console-tail").await?;
    let browser = &desk.browser;
    altering(browser, GROWING).await?;
    desk.visit("audit").await?;
    assert_eq!(shown(browser).await?, (11..=60).rev().collect::<Vec<u64>>());
    let mut newest = 60;
    // Past the thousand rows that are kept.
    while newest < 1_100 {
        newest += 45;
        // A page that is looked at again asks at once.
        let grow = "window.newest = arguments[0]; document.dispatchEvent(new Event('visibilitychange'))";
        browser.script(grow, &[newest.into()]).await?;
        let there = "return document.querySelector('[data-event]').dataset.event === String(arguments[0]) || \
                     void document.dispatchEvent(new Event('visibilitychange'))";
        browser.until("the newest event", there, &[newest.into()]).await?;
    }
    let before = shown(browser).await?;
    assert!(before.len() <= 1_000 && before.len() > 900, "{}", before.len());
    let twice = "const older = [...document.querySelectorAll('button')].find((one) => one.innerText === 'Show older'); \
                 older.click(); older.click()";
    browser.script(twice, &[]).await?;
    let more = "return document.querySelectorAll('[data-event]').length > arguments[0]";
    browser.until("older events", more, &[before.len().into()]).await?;
    browser.sees("Paused").await?;
    let after = shown(browser).await?;
    let last = newest - u64::try_from(before.len())? - 50;
    assert_eq!(after, (last + 1..=newest).rev().collect::<Vec<u64>>());
    // To the end, which is where there is no more to show.
    let mut length = after.len();
    while length < usize::try_from(newest)? {
        browser.click("button", "Show older").await?;
        browser.until("older events", more, &[length.into()]).await?;
        length = shown(browser).await?.len();
    }
    assert_eq!(shown(browser).await?, (1..=newest).rev().collect::<Vec<u64>>());
    let gone = "return [...document.querySelectorAll('button')].find((one) => one.innerText === 'Show older')?.hidden !== false";
    browser.until("no older ones", gone, &[]).await.map(drop)
}
