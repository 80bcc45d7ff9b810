//! The results, as a table and as JSON.

use crate::fleet::Fleet;
use crate::intake::Intake;
use crate::pages::Pages;
use bouncer_tests::Result;
use bouncer_tests::stats::Spread;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

/// All of it, as scale.json has it.
#[derive(Debug, Serialize)]
struct Results {
    /// Of this format.
    version: u32,
    /// Built without optimisation: no figure counts.
    debug: bool,
    /// What was measured on each database.
    databases: BTreeMap<&'static str, OnDatabase>,
    /// Streams.
    fleet: Option<Fleet>,
}

/// What was measured on one database.
#[derive(Debug, Default, Serialize)]
struct OnDatabase {
    /// Pages.
    pages: Option<Pages>,
    /// Audit.
    intake: Option<Intake>,
}

/// Prints each part when it is there, and keeps what is there so far.
pub(crate) struct Report<W> {
    results: Results,
    file: PathBuf,
    out: W,
}

/// At most so many times a page of the short list.
const PAGE: f64 = 2.0;
/// At least so much of the database's own rate.
const INTAKE: f64 = 0.5;
/// At most so many times a bare broadcast.
const CHANGE: f64 = 3.0;
/// At most so many bytes a stream.
const STREAM: f64 = 50_000.0;

impl Pages {
    fn held(&self) -> bool {
        self.pages.iter().all(|page| page.ratio <= PAGE && page.items.0 == page.items.1)
    }
}

impl<W: Write> Report<W> {
    /// Begins the table.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn begin(file: PathBuf, mut out: W) -> Result<Self> {
        let debug = cfg!(debug_assertions);
        writeln!(out, "\nScale: each figure beside its peer of the same run; median (min to max).")?;
        if debug {
            writeln!(out, "VOID: built without optimisation. No promise counts as held.")?;
        }
        let results = Results { version: 2, debug, databases: BTreeMap::new(), fleet: None };
        Ok(Self { results, file, out })
    }

    fn keep(&mut self) -> Result<()> {
        self.out.flush()?;
        Ok(std::fs::write(&self.file, serde_json::to_vec_pretty(&self.results)?)?)
    }

    /// # Errors
    /// If it can't be written.
    pub(crate) fn pages(&mut self, database: &'static str, pages: Pages) -> Result<()> {
        print_pages(&mut self.out, database, &pages)?;
        self.results.databases.entry(database).or_default().pages = Some(pages);
        self.keep()
    }

    /// # Errors
    /// If it can't be written.
    pub(crate) fn intake(&mut self, on: &'static str, intake: Intake) -> Result<()> {
        let Intake { senders, batch, events, rounds, connections, bridge, database, ratio } = &intake;
        writeln!(
            self.out,
            "\naudit on {on}: {rounds} rounds of {events} events, by {senders} bouncers in batches of {batch}\n  by the \
             Policy Bridge {} a second, by its own inserts {} a second, over {connections} connections\n  at least half: \
             {}, {}",
            whole(bridge),
            whole(database),
            met(ratio.median >= INTAKE),
            span(ratio),
        )?;
        self.results.databases.entry(on).or_default().intake = Some(intake);
        self.keep()
    }

    /// # Errors
    /// If it can't be written.
    pub(crate) fn fleet(&mut self, fleet: Fleet) -> Result<()> {
        writeln!(
            self.out,
            "\n{} streams, each of a bouncer, an SVID and a connection of its own; up in {:.1} s\n  {:.0} bytes of \
             memory a stream, at most 50,000: {}\n  a change of {} bytes for each reaches all in {} ms, a bare broadcast \
             in {} ms\n  at most 3 times: {}, {:.2}\n  a change for one of them reaches it in {} ms",
            fleet.streams,
            fleet.up_s,
            fleet.bytes_each,
            met(fleet.bytes_each <= STREAM),
            fleet.message_bytes,
            span(&fleet.change_ms),
            span(&fleet.broadcast_ms),
            met(fleet.ratio <= CHANGE),
            fleet.ratio,
            span(&fleet.one_ms),
        )?;
        self.results.fleet = Some(fleet);
        self.keep()
    }
}

fn print_pages(out: &mut impl Write, database: &str, pages: &Pages) -> io::Result<()> {
    let (short, long) = pages.secrets;
    writeln!(out, "\npages of envelope secrets on {database}, {} rounds: of {short}, of {long}, ms", pages.rounds)?;
    for page in &pages.pages {
        let items = match page.items {
            (short, long) if short == long => format!("{long} items"),
            (short, long) => format!("{short} and {long} items: NOT the same page"),
        };
        let Spread { median: short, .. } = page.short_ms;
        let Spread { median: long, .. } = page.long_ms;
        writeln!(out, "  {:36} {short:>7.2} {long:>7.2}  {:>5.2}  {items}", page.kind, page.ratio)?;
    }
    let worst = pages.pages.iter().map(|page| page.ratio).fold(0.0, f64::max);
    writeln!(out, "  every kind at most twice: {}, {worst:.2}", met(pages.held()))
}

const fn met(met: bool) -> &'static str {
    if met { "met" } else { "NOT met" }
}

fn span(spread: &Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max)
}

fn whole(spread: &Spread) -> String {
    format!("{:.0} ({:.0}–{:.0})", spread.median, spread.min, spread.max)
}
