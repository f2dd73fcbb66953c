//! `bongsu`: arguments, tracing, exit code; nothing else.

mod cli;
mod commands;
mod config;
mod demo;
mod failure;
mod kafka;
mod output;
mod reload;
mod shutdown;

use std::process::ExitCode;

use clap::Parser;

// Many short-lived Arrow buffers on several threads: measurably faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Parsing ends the process itself for --help (0) and for wrong usage (2).
    let cli = cli::Cli::parse();
    output::log_to_stderr(cli.log_format, cli.command.is_long_running());
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
