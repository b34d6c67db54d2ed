//! What is asked of the live application.

use std::path::Path;
use std::time::Duration;

use lifeboat_ops::probe::{Asked, Place, Probe};
use serde_json::json;

use super::super::parse;
use super::{PATH, assert_refused, read, surroundings, with};

/// The example with these probes, one a line.
fn probes(list: &[&str]) -> String {
    let lines: String = list.iter().map(|probe| format!("      - {probe}\n")).collect();
    with(
        "    not_backed_up: { sessions: ephemeral }\n",
        &format!("    not_backed_up: {{ sessions: ephemeral }}\n    probes:\n{lines}"),
    )
}

fn lowered(list: &[&str]) -> Vec<Probe> {
    let settings = read(&probes(list)).unwrap();
    settings.plans["sortie"].probes.clone()
}

#[test]
fn every_kind_arrives_with_its_defaults() {
    let found = lowered(&[
        "{ http: { url: \"https://app.example.com/health\", json: { z: 1, a.b.0: null, c: 1.5, d: \"true\", e: true, f: -2 } } }",
        "{ name: ws, websocket: { url: \"ws://app:8080/ws\", within: 5s, ca: ca.pem } }",
        "{ command: { run: [./smoke.sh, --token, x] } }",
        "{ certificate: { host: app.example.com } }",
        "{ certificate: { host: \"[::1]:8443\", valid_for: 1d } }",
        "{ certificate: { file: certs/server.pem } }",
        "{ file: { path: /etc/app.yaml, contains: x, max_age: 7d } }",
    ]);
    let names: Vec<&str> = found.iter().map(|probe| probe.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "GET https://app.example.com/health",
            "ws",
            "run ./smoke.sh",
            "certificate of app.example.com",
            "certificate of [::1]:8443",
            "certificates in /etc/lifeboat/certs/server.pem",
            "file /etc/app.yaml",
        ]
    );
    let (ten, month) = (Duration::from_secs(10), Duration::from_secs(30 * 86_400));
    let Asked::Http(http) = &found[0].asked else {
        panic!("{found:#?}")
    };
    assert_eq!((http.status, http.within, http.ca.is_none()), (200, ten, true));
    let wanted = [
        ("z", json!(1)),
        ("a.b.0", json!(null)),
        ("c", json!(1.5)),
        ("d", json!("true")),
    ];
    let wanted: Vec<_> = [wanted.as_slice(), &[("e", json!(true)), ("f", json!(-2))]].concat();
    let wanted: Vec<_> = wanted.into_iter().map(|(path, value)| (path.to_owned(), value)).collect();
    assert_eq!(http.json, wanted);
    let Asked::WebSocket(ws) = &found[1].asked else {
        panic!("{found:#?}")
    };
    assert_eq!(ws.within, Duration::from_secs(5));
    assert_eq!(ws.ca.as_deref(), Some("/etc/lifeboat/ca.pem".as_ref()));
    let Asked::Command(command) = &found[2].asked else {
        panic!("{found:#?}")
    };
    assert_eq!((command.within, command.run.len()), (Duration::from_secs(60), 3));
    assert_eq!(command.folder, std::path::Path::new("/etc/lifeboat"));
    for (at, name, number) in [(3, "app.example.com", 443), (4, "::1", 8443)] {
        let Asked::Certificate(certificate) = &found[at].asked else {
            panic!("{found:#?}")
        };
        let Place::Host { host, port, within, .. } = &certificate.place else {
            panic!("{found:#?}")
        };
        assert_eq!((host.as_str(), *port, *within), (name, number, ten));
    }
    let Asked::Certificate(certificate) = &found[5].asked else {
        panic!("{found:#?}")
    };
    assert_eq!(certificate.valid_for, month);
}

#[test]
fn a_secret_of_a_header_in_the_clear_gives_a_warning_and_is_not_shown() {
    let text = probes(&["{ http: { url: \"http://app/\", headers: { accept: a/b, Authorization: Bearer s3cret } } }"]);
    let settings = read(&text).unwrap();
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    assert!(
        settings.warnings[0].contains("the header Authorization"),
        "{:?}",
        settings.warnings
    );
    assert!(!format!("{settings:?}").contains("s3cret"));
    // Nor where a mistake beside it is shown, however the name is written.
    for name in ["X-API-Key", "AUTHORIZATION", "x-auth-token", "Proxy-Authorization", "cookie"] {
        let text = probes(&[&format!(
            "{{ http: {{ url: \"http://app/\", headers: {{ {name}: s3cret }}, within: soon }} }}"
        )]);
        let error = parse(Path::new(PATH), text.as_bytes(), &surroundings())
            .unwrap_err()
            .to_string();
        assert!(error.contains("within: soon") && !error.contains("s3cret"), "{error}");
    }
    let shown = crate::config::show(&settings).to_string();
    assert!(shown.contains("authorization: …") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cases: [(&str, &[&str]); 4] = [
        (
            "probe-kinds",
            &[
                "{ name: nothing }",
                "{ http: { url: \"http://a/\" }, file: { path: x } }",
                "{ certificate: { valid_for: 30d } }",
                "{ certificate: { file: a.pem, ca: ca.pem, within: 1s } }",
            ],
        ),
        ("probe-unknown", &["{ name: mail, smtp: { host: a } }"]),
        (
            "probe-names",
            &[
                "{ file: { path: x } }",
                "{ file: { path: ./x } }",
                "{ name: a, file: { path: y } }",
                "{ name: a, file: { path: z } }",
                "{ name: \" \", file: { path: z } }",
            ],
        ),
        (
            "probe-values",
            &[
                "{ http: { url: \"ftp://a/\", status: 700, within: 0s, json: { a..b: 1 } } }",
                "{ name: login, http: { url: \"https://me:hunter2@a/\", headers: { Host: b, \"a b\": c, authorization: Bearer hunter2 } } }",
                "{ websocket: { url: \"https://a/ws\", within: 5 } }",
                "{ command: { run: [] } }",
                "{ certificate: { host: \"a:b\" } }",
                "{ file: { path: \"\", contains: \"\", max_age: week } }",
            ],
        ),
    ];
    for (name, list) in cases {
        assert_refused(name, probes(list).as_bytes());
    }
}
