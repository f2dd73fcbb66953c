//! A running `bongsu`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

const READY_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Dropping it kills it; so does the end of the benchmark, however that comes about.
pub(crate) struct Processor {
    child: Child,
    watchdog: Child,
    listen: SocketAddr,
}

impl Processor {
    /// Starts `command`, which serves `listen`. Should the benchmark die, `folder` goes with it.
    pub(crate) fn spawn(command: &mut Command, folder: &Path, listen: SocketAddr) -> anyhow::Result<Processor> {
        let mut child = command.spawn().context("starting bongsu")?;
        // Reads until the benchmark closes its end of the pipe, which the kernel does at any kind of death.
        let watchdog = Command::new("sh")
            .args(["-c", r#"read -r _; kill -9 "$1"; rm -rf "$2""#, "watchdog", &child.id().to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Processor { child, watchdog, listen }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error).context("starting the watchdog")
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Until all these parts are ready.
    pub(crate) fn await_ready(&mut self, parts: &[&str]) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let answer = self.readiness().unwrap_or_default();
            if parts.iter().all(|part| is_ready(&answer, part)) {
                return Ok(());
            }
            self.check_alive()?;
            ensure!(Instant::now() < deadline, "not ready within {READY_WITHIN:?}: {answer}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn readiness(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.listen)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("bongsu ended by itself: {status}"),
        }
    }

    /// SIGTERM, as an operator would.
    pub(crate) fn terminate(mut self) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(sent.success(), "bongsu could not be told to end");
        let deadline = Instant::now() + ENDS_WITHIN;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("bongsu ended with {status}"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
        bail!("bongsu did not end")
    }

    /// SIGKILL. Gives the moment of it; the process is gone when this returns.
    pub(crate) fn kill(mut self) -> anyhow::Result<Instant> {
        // As in `drop`, the watchdog first; and not within the time that is measured.
        self.watchdog.kill()?;
        self.watchdog.wait()?;
        let killed_at = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        Ok(killed_at)
    }
}

/// Whether `/readyz` says so: in lines where the process only processes, as JSON where it has the page.
fn is_ready(answer: &str, part: &str) -> bool {
    answer.contains(&format!("{part}: ready\n")) || answer.contains(&format!(r#""{part}":{{"ready":true}}"#))
}

impl Drop for Processor {
    fn drop(&mut self) {
        // The watchdog first: once bongsu is reaped its pid may belong to somebody else. Errors mean that they have
        // ended already.
        for child in [&mut self.watchdog, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
