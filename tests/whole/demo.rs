//! The demo through the binary, as somebody who tries Bongsu meets it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Ends the demo whatever becomes of the test.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Scenario: the demo is started, its card issuer fails after 20 s, and Ctrl-C ends it.
/// Guarantees: within a minute of the start the alert that names the issuer is in the stand-in's channel and on the page.
#[test]
fn the_alert_arrives_within_a_minute() {
    let started = Instant::now();
    let deadline = started + Duration::from_secs(60);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bongsu"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--seed", "3"]).stdout(Stdio::piped());
    let mut demo = Demo(command.spawn().unwrap());
    let stdout = demo.0.stdout.take().unwrap();
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));

    let mut told = Vec::new();
    let mut line_with = |part: &str| loop {
        let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let line = line.unwrap_or_else(|_| panic!("no line with `{part}` within a minute: {told:#?}"));
        told.push(line.clone());
        if line.contains(part) {
            return line;
        }
    };
    let address = line_with("the page").split("http://").nth(1).unwrap().trim_end_matches('/').to_owned();
    let outage = line_with("OUTAGE");
    let victim = outage.split(" with ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let alert = line_with("ALERT in Slack #payment-alerts");
    assert!(alert.contains(&victim), "{alert} does not name {victim}");

    let channels = get(&address, "/demo/slack/messages.json");
    assert!(channels.contains("\"payment-alerts\"") && channels.contains(&victim), "{channels}");
    for path in ["/demo/slack", "/demo/slack/page.js", "/demo/mail", "/demo/mail/messages.json", "/metrics"] {
        assert!(get(&address, path).starts_with("HTTP/1.1 200"), "{path}");
    }
    // The page reads the same topics as Slack does, on its own: it may be a moment later.
    loop {
        let alerts = get(&address, "/api/alerts");
        if alerts.contains(&victim) {
            break;
        }
        assert!(Instant::now() < deadline, "not on the page within a minute: {alerts}");
        thread::sleep(Duration::from_millis(50));
    }

    let interrupted = Command::new("kill").args(["-INT", &demo.0.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let ended = demo.0.wait().unwrap();
    assert_eq!(ended.code(), Some(0), "{told:#?}");
}
