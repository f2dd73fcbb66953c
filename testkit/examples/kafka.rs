//! Runs a broker until Ctrl-C or SIGTERM: `cargo run --release -p bongsu-testkit --example kafka`.
//! Prints its address on stdout. The broker and all its data go with this process, whatever ends it.

use std::{io::Write, thread};

fn main() -> anyhow::Result<()> {
    let broker = bongsu_testkit::Broker::start()?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", broker.bootstrap())?;
    stdout.flush()?;
    loop {
        thread::park();
    }
}
