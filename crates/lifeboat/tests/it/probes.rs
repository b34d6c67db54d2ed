//! Probes of a live application: real servers, real programs, real certificates, right and wrong.

mod server;

use serde_json::Value;
use server::{Server, closed_port};

use crate::world::World;

/// A system with nothing but these probes.
fn asking(probes: &[String]) -> World {
    let world = World::empty();
    configure(&world, probes);
    world
}

fn configure(world: &World, probes: &[String]) {
    let lines: Vec<String> = probes.iter().map(|probe| format!("      - {probe}\n")).collect();
    let text = format!(
        "version: 1\ninstance: {{ name: here, state_dir: {} }}\nsystems:\n  app:\n    probes:\n{}",
        world.shown("state"),
        lines.concat()
    );
    world.write("lifeboat.yaml", &text);
}

/// What came of them, and how the command ended.
#[track_caller]
fn probed(world: &World, code: i32) -> Vec<Value> {
    let document = world.run(&["check", "app", "--probes", "--json"]).ends(code).json("check");
    assert_eq!(document["exit_code"], code, "{document:#}");
    assert_eq!(document["components"], serde_json::json!([]), "{document:#}");
    document["probes"].as_array().unwrap().clone()
}

/// One probe has failed, and says this.
#[track_caller]
fn failed(outcome: &Value, parts: &[&str]) {
    assert_eq!(outcome["verdict"], "failed", "{outcome:#}");
    said(outcome, parts);
}

#[track_caller]
fn passed(outcome: &Value, parts: &[&str]) {
    assert_eq!(outcome["verdict"], "passed", "{outcome:#}");
    said(outcome, parts);
}

#[track_caller]
fn said(outcome: &Value, parts: &[&str]) {
    let evidence = outcome["evidence"].as_array().unwrap().iter();
    let lines: Vec<&str> = evidence.map(|line| line.as_str().unwrap()).collect();
    let all = format!("{}\n{}", outcome["says"].as_str().unwrap(), lines.join("\n"));
    for part in parts {
        assert!(all.contains(part), "{part:?} is not in {outcome:#}");
    }
}

/// An authority, a certificate of `localhost` for ten years, one for ten days, and one of somebody else.
fn certificates(world: &World) {
    world.script(
        r#"
        key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
        key ca
        openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=ca" -addext basicConstraints=critical,CA:TRUE -out ca.pem
        signed() {
            key "$1"
            openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
            printf 'subjectAltName=%s' "$4" >"$1.ext"
            openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days "$3" -extfile "$1.ext" -out "$1.pem" 2>&1
        }
        signed long long-lived 3650 DNS:localhost
        signed soon short-lived 10 DNS:localhost
        signed other somebody-else 3650 DNS:other.example
        "#,
    );
}

fn tls(world: &World, name: &str) -> Server {
    Server::tls(&world.path(&format!("{name}.pem")), &world.path(&format!("{name}.key")))
}

#[test]
fn the_right_answer_passes_and_is_shown() {
    let server = Server::plain();
    let at = format!("http://localhost:{}", server.port);
    let world = asking(&[
        format!(
            "{{ name: health, http: {{ url: \"{at}/good?deep=1\", json: {{ status: ok, db.connected: true, db.lag: 0.5, \
             db.nodes.1.state: down, build: 42, note: null }} }} }}"
        ),
        format!("{{ http: {{ url: \"{at}/teapot\", status: 418, within: 60s }} }}"),
        format!("{{ http: {{ url: \"{at}/mebibyte\", within: 60s }} }}"),
    ]);
    let outcomes = probed(&world, 0);
    let [health, teapot, mebibyte] = outcomes.as_slice() else {
        panic!("{outcomes:#?}");
    };
    assert_eq!(health["name"], "health");
    let values = [
        "status is \"ok\"",
        "db.connected is true",
        "db.nodes.1.state is \"down\"",
        "note is null",
    ];
    passed(health, &[&["HTTP/1.1 200 OK in "], values.as_slice()].concat());
    assert_eq!(teapot["name"], format!("GET {at}/teapot"));
    passed(teapot, &["HTTP/1.1 418 I'm a teapot"]);
    passed(mebibyte, &["HTTP/1.1 200 OK"]);
    let saw = [server.saw(), server.saw(), server.saw()];
    assert_eq!(saw, ["GET /good?deep=1", "GET /teapot", "GET /mebibyte"]);
    let text = world.run(&["check", "app"]).ends(0).stdout;
    assert!(text.starts_with("app: the live application\n  passed "), "{text}");
}

#[test]
fn every_wrong_answer_fails_and_says_how() {
    let server = Server::plain();
    let at = format!("http://localhost:{}", server.port);
    let closed = format!("http://localhost:{}", closed_port());
    let cases: Vec<(String, &str, &[&str])> = vec![
        (
            format!("{at}/teapot"),
            "",
            &[
                "it answered HTTP/1.1 418 I'm a teapot, and 200 is wanted",
                "it said: short and stout [2J",
            ],
        ),
        (
            format!("{at}/redirect"),
            "",
            &["302 Found, and 200 is wanted", "a redirect to /good, which is not followed"],
        ),
        (
            format!("{at}/good"),
            "json: { status: down, build: 42 }",
            &["status is \"ok\", and \"down\" is wanted", "build is 42", "200 OK in"],
        ),
        (
            format!("{at}/good"),
            "json: { build: \"42\" }",
            &["build is 42, and \"42\" is wanted"],
        ),
        (
            format!("{at}/good"),
            "json: { db.nodes.2.state: up }",
            &["db.nodes.2.state is not there, and \"up\" is wanted"],
        ),
        (
            format!("{at}/text"),
            "json: { status: ok }",
            &["the answer is not JSON", "it said: all is well"],
        ),
        (format!("{at}/huge"), "", &["the answer is longer than 1 MiB"]),
        (format!("{at}/cut"), "", &["the answer broke off"]),
        (format!("{at}/closes"), "", &["gave no answer that is HTTP"]),
        (format!("{at}/nonsense"), "", &["gave no answer that is HTTP"]),
        (
            format!("{at}/silent"),
            "within: 200ms",
            &["/silent did not answer within 200ms"],
        ),
        (format!("{at}/half"), "within: 200ms", &["/half did not answer within 200ms"]),
        (
            format!("{closed}/"),
            "",
            &["cannot be reached", "refused", "hint: is the application running"],
        ),
    ];
    let probe = |(at, (url, more, _)): (usize, &(String, &str, &[&str]))| {
        let comma = if more.is_empty() { "" } else { ", " };
        format!("{{ name: \"{at}\", http: {{ url: \"{url}\"{comma}{more} }} }}")
    };
    let world = asking(&cases.iter().enumerate().map(probe).collect::<Vec<_>>());
    let outcomes = probed(&world, 5);
    assert_eq!(outcomes.len(), cases.len());
    for (outcome, (_, _, parts)) in outcomes.iter().zip(&cases) {
        failed(outcome, parts);
    }
    let human = world.run(&["check", "app", "--probes"]).ends(5).stdout;
    assert!(!human.contains("\u{1b}[2J") && human.contains("  failed "), "{human}");
}

#[test]
fn only_an_authority_that_is_named_is_trusted_and_headers_may_be_secrets() {
    let mut world = World::empty();
    certificates(&world);
    let (plain, safe) = (Server::plain(), tls(&world, "long"));
    let at = format!("https://localhost:{}", safe.port);
    let headers = "headers: { authorization: { env: PROBE_TOKEN }, X-Who: probe }";
    configure(
        &world,
        &[
            format!("{{ name: named, http: {{ url: \"{at}/good\", ca: ca.pem }} }}"),
            format!("{{ name: unknown, http: {{ url: \"{at}/good\" }} }}"),
            format!("{{ name: wrong, http: {{ url: \"{at}/good\", ca: long.key }} }}"),
            format!(
                "{{ name: secret, http: {{ url: \"http://localhost:{}/secret\", {headers} }} }}",
                plain.port
            ),
        ],
    );
    let outcomes = probed(&world, 5);
    passed(&outcomes[0], &["200 OK"]);
    failed(&outcomes[1], &["cannot be reached", "certificate"]);
    failed(
        &outcomes[2],
        &["there is no certificate in it", "hint: `ca` names a readable file"],
    );
    failed(&outcomes[3], &["‹env:PROBE_TOKEN›", "the variable is not set"]);
    world.set_env("PROBE_TOKEN", "Bearer s3cret");
    passed(&probed(&world, 5)[3], &["200 OK"]);
    world.set_env("PROBE_TOKEN", "Bearer other");
    let ran = world.run(&["--verbose", "check", "app", "--probes"]).ends(5);
    assert!(ran.stdout.contains("401 Unauthorized"), "{}", ran.stdout);
    world.set_env("PROBE_TOKEN", "Bearer s3\u{1}cret");
    let broken = world.run(&["check", "app", "--probes"]).ends(5);
    assert!(
        broken.stdout.contains("characters that no header may have"),
        "{}",
        broken.stdout
    );
    for said in [ran.stdout, ran.stderr, broken.stdout, broken.stderr] {
        assert!(!said.contains("Bearer"), "{said}");
    }
}

#[test]
fn a_websocket_answers_a_ping_and_is_closed() {
    let world = World::empty();
    certificates(&world);
    let (plain, safe) = (Server::plain(), tls(&world, "long"));
    configure(
        &world,
        &[
            format!(
                "{{ name: plain, websocket: {{ url: \"ws://localhost:{}/ws\" }} }}",
                plain.port
            ),
            format!("{{ websocket: {{ url: \"wss://localhost:{}/ws\", ca: ca.pem }} }}", safe.port),
        ],
    );
    let outcomes = probed(&world, 0);
    for outcome in &outcomes {
        passed(
            outcome,
            &[
                "HTTP/1.1 101 Switching Protocols after",
                "and the pong after",
                "messages before the pong: 2",
            ],
        );
    }
    assert_eq!(outcomes[1]["name"], format!("ping wss://localhost:{}/ws", safe.port));
    for server in [plain, safe] {
        // The answer to the server's own ping, and a close with the code 1000.
        let saw = [server.saw(), server.saw(), server.saw()];
        assert_eq!(saw, ["GET /ws", "8a [79, 6f, 75, 3f]", "88 [3, e8]"]);
    }
}

#[test]
fn what_is_no_websocket_fails_and_says_why() {
    let world = World::empty();
    certificates(&world);
    let (plain, safe) = (Server::plain(), tls(&world, "long"));
    let cases: &[(&str, &[&str])] = &[
        ("ws-refused", &["it opens no WebSocket: HTTP/1.1 403 Forbidden"]),
        (
            "ws-moved",
            &["301 Moved Permanently", "a redirect to /ws, which is not followed"],
        ),
        (
            "ws-wrong",
            &["Sec-WebSocket-Accept is not the one for our key", "who did not read it"],
        ),
        ("ws-compressed", &["sec-websocket-extensions, which nobody asked for"]),
        ("good", &["it opens no WebSocket: HTTP/1.1 200 OK"]),
        ("closes", &["closed the connection instead of answering"]),
        (
            "ws-closes",
            &["closed the WebSocket instead of answering the ping", "1011 no database"],
        ),
        ("ws-leaves", &["closed the connection instead of answering the ping"]),
        ("ws-other", &["closed the connection instead of answering the ping"]),
        ("ws-masked", &["says what no WebSocket says", "masked frame from server"]),
        ("ws-floods", &["more than 1 MiB, and no pong"]),
        ("ws-endless", &["more than 1 MiB, and no pong"]),
    ];
    let mut probes: Vec<String> = cases
        .iter()
        .map(|(path, _)| format!("{{ websocket: {{ url: \"ws://localhost:{}/{path}\" }} }}", plain.port))
        .collect();
    probes.push(format!(
        "{{ websocket: {{ url: \"ws://localhost:{}/ws-silent\", within: 200ms }} }}",
        plain.port
    ));
    probes.push(format!("{{ websocket: {{ url: \"wss://localhost:{}/ws\" }} }}", safe.port));
    probes.push(format!("{{ websocket: {{ url: \"ws://localhost:{}/ws\" }} }}", closed_port()));
    configure(&world, &probes);
    let outcomes = probed(&world, 5);
    let (answered, others) = outcomes.split_at(cases.len());
    for (outcome, (_, parts)) in answered.iter().zip(cases) {
        failed(outcome, parts);
    }
    failed(&others[0], &["/ws-silent did not answer within 200ms"]);
    failed(&others[1], &["cannot be reached", "certificate"]);
    failed(&others[2], &["cannot be reached", "refused"]);
}

#[test]
fn a_command_passes_with_its_exit_code_and_is_stopped_whole() {
    let world = asking(&[
        "{ command: { run: [./smoke.sh, a, \"$HOME\"] } }".to_owned(),
        "{ name: fails, command: { run: [sh, -c, \"for i in $(seq 30); do echo line $i; done; echo no database >&2; exit 3\"] } }".to_owned(),
        "{ name: hangs, command: { run: [sh, -c, \"exec 9>held; flock 9; echo waiting; sleep 600 & wait\"], within: 5s } }".to_owned(),
        "{ name: absent, command: { run: [./absent.sh] } }".to_owned(),
        "{ name: killed, command: { run: [sh, -c, \"kill -9 $$\"] } }".to_owned(),
    ]);
    world.write("smoke.sh", "#!/bin/sh\necho \"$1 $2\"; pwd\n");
    world.script("chmod +x smoke.sh");
    // It runs in the folder of the configuration, wherever we are.
    let config = world.shown("lifeboat.yaml");
    let mut command = world.command();
    command.current_dir(world.path("home"));
    let ran = world
        .finish(command.args(["--config", &config, "check", "app", "--probes", "--json"]))
        .ends(5);
    let document = ran.json("check");
    let outcomes = document["probes"].as_array().unwrap();
    assert_eq!(outcomes[0]["name"], "run ./smoke.sh");
    let folder = world.path("").canonicalize().unwrap().display().to_string();
    passed(
        &outcomes[0],
        &["./smoke.sh ended with exit status: 0 after", "a $HOME", &folder],
    );
    failed(&outcomes[1], &["sh ended with exit status: 3", "line 30", "no database"]);
    assert_eq!(outcomes[1]["evidence"].as_array().unwrap().len(), 10, "{:#}", outcomes[1]);
    failed(&outcomes[2], &["sh did not end within 5s and was stopped", "waiting"]);
    failed(
        &outcomes[3],
        &[
            "./absent.sh is not there",
            "hint: a path begins at the folder of the configuration",
        ],
    );
    failed(&outcomes[4], &["signal: 9"]);
    // What it had started is gone, too: nobody holds the lock any more.
    world.script("flock -w 60 held true");
}

#[test]
fn a_certificate_that_ends_soon_fails_wherever_it_is() {
    let world = World::empty();
    certificates(&world);
    world.script("cat long.pem soon.pem >both.pem; head -c 300 long.pem >cut.pem; cat long.pem cut.pem >half.pem");
    let servers = [tls(&world, "long"), tls(&world, "soon"), tls(&world, "other")];
    let [long, soon, other] = servers.each_ref().map(|server| format!("localhost:{}", server.port));
    let plain = Server::plain();
    let host = |host: &str, more: &str| format!("{{ certificate: {{ host: \"{host}\", {more} }} }}");
    let file = |file: &str, more: &str| format!("{{ certificate: {{ file: {file}{more} }} }}");
    configure(
        &world,
        &[
            host(&long, "ca: ca.pem"),
            file("long.pem", ""),
            file("soon.pem", ", valid_for: 5d"),
            host(&soon, "ca: ca.pem"),
            format!("{{ name: untrusted, certificate: {{ host: \"{long}\" }} }}"),
            host(&other, "ca: ca.pem"),
            host(&format!("localhost:{}", closed_port()), "within: 30s"),
            host(&format!("localhost:{}", plain.port), "within: 1s"),
            file("both.pem", ""),
            file("cut.pem", ""),
            file("half.pem", ""),
            file("absent.pem", ""),
            file("long.key", ""),
        ],
    );
    let outcomes = probed(&world, 5);
    assert_eq!(outcomes[0]["name"], format!("certificate of {long}"));
    passed(&outcomes[0], &[&long, "is valid until 20", "CN=long-lived, valid until 20"]);
    passed(&outcomes[1], &["long.pem is valid until 20", "CN=long-lived"]);
    passed(&outcomes[2], &["CN=short-lived, valid until 20"]);
    failed(
        &outcomes[3],
        &[
            "CN=short-lived ends in ",
            "and 30d are wanted",
            "CN=short-lived, valid until 20",
        ],
    );
    failed(&outcomes[4], &["it is not trusted: ", "CN=long-lived, valid until 20"]);
    failed(
        &outcomes[5],
        &["it is not trusted: ", "localhost", "CN=somebody-else, valid until 20"],
    );
    failed(&outcomes[6], &["cannot be reached", "refused"]);
    failed(&outcomes[7], &["did not answer within 1s"]);
    failed(&outcomes[8], &["CN=short-lived ends in ", "CN=long-lived, valid until"]);
    failed(
        &outcomes[9],
        &["there is no certificate that can be read", "damaged or cut off"],
    );
    failed(&outcomes[10], &["damaged or cut off", "CN=long-lived, valid until"]);
    failed(&outcomes[11], &["absent.pem", "No such file"]);
    failed(
        &outcomes[12],
        &["there is no certificate that can be read", "no certificate is in it"],
    );
}

#[test]
fn a_file_has_to_be_there_with_its_text_and_not_old() {
    let world = asking(&[
        "{ file: { path: app.yaml } }".to_owned(),
        "{ name: fresh, file: { path: app.yaml, contains: \"database:\", max_age: 7d } }".to_owned(),
        "{ name: linked, file: { path: link.yaml, contains: \"database:\" } }".to_owned(),
        "{ name: absent, file: { path: absent.yaml } }".to_owned(),
        "{ name: folder, file: { path: home } }".to_owned(),
        "{ name: lacks, file: { path: app.yaml, contains: \"queue:\" } }".to_owned(),
        "{ name: old, file: { path: old.yaml, contains: \"database:\", max_age: 7d } }".to_owned(),
    ]);
    world.write("app.yaml", "port: 1\ndatabase: x\n");
    world.script("cp app.yaml old.yaml; touch -d '8 days ago' old.yaml; ln -s old.yaml link.yaml");
    let outcomes = probed(&world, 5);
    assert_eq!(outcomes[0]["name"], format!("file {}", world.shown("app.yaml")));
    passed(&outcomes[0], &["app.yaml is there", "20 B, changed "]);
    passed(&outcomes[1], &["it contains \"database:\""]);
    passed(&outcomes[2], &["changed 8d"]);
    failed(&outcomes[3], &["absent.yaml is not there"]);
    failed(&outcomes[4], &["home is no regular file"]);
    failed(&outcomes[5], &["app.yaml does not contain \"queue:\"", "20 B"]);
    failed(&outcomes[6], &["old.yaml was not changed for longer than 7d", "changed 8d"]);
}

#[test]
fn a_system_is_asked_after_its_components_and_a_component_alone_is_not() {
    let world = World::protected();
    world.write("state.txt", "ready");
    world.edit_config(
        "  shop:\n",
        "  shop:\n    probes: [{ name: marker, file: { path: state.txt, contains: ready } }]\n",
    );
    let document = world.run(&["check", "shop", "--json"]).ends(0).json("check");
    assert_eq!(document["components"][0]["good"], true, "{document:#}");
    assert_eq!(document["probes"][0]["name"], "marker", "{document:#}");
    let text = world.run(&["check", "shop"]).ends(0).stdout;
    assert!(
        text.contains("integrity") && text.contains("shop: the live application"),
        "{text}"
    );
    let only = world.run(&["check", "shop", "--probes"]).ends(0).stdout;
    assert!(!only.contains("integrity") && only.contains("marker"), "{only}");
    world.write("state.txt", "down");
    let document = world.run(&["check", "shop", "--json"]).ends(5).json("check");
    assert_eq!(document["components"][0]["good"], true, "{document:#}");
    assert_eq!(document["probes"][0]["verdict"], "failed", "{document:#}");
    let component = document["components"][0]["component"].as_str().unwrap();
    let alone = world.run(&["check", component, "--json"]).ends(0).json("check");
    assert!(alone.get("probes").is_none(), "{alone:#}");
    let refused = world.run(&["check", component, "--probes"]).ends(2).stderr;
    assert!(refused.contains("lifeboat check shop --probes"), "{refused}");
    world.run(&["check", "shop", "--probes", "--on", "shop.db"]).ends(2);
    world.run(&["check", "shoop", "--probes"]).ends(2);
    // A component that cannot be checked keeps nobody from asking the application.
    world.script("mv lifeboat-backups moved");
    let ran = world.run(&["check", "shop", "--json"]);
    let document = ran.json("check");
    assert_ne!(ran.code, 0);
    assert_eq!(document["probes"][0]["verdict"], "failed", "{document:#}");
    assert!(document["components"][0].get("error").is_some(), "{document:#}");
}

#[test]
fn without_probes_there_is_nothing_to_ask_and_a_mistake_is_told_with_its_place() {
    let world = World::protected();
    let none = world.run(&["check", "shop", "--probes"]).ends(7).stderr;
    assert!(none.contains("the configuration has no `probes` for it"), "{none}");
    let world = asking(&["{ name: a, file: { path: x } }".to_owned(), "{ name: a }".to_owned()]);
    let refused = world.run(&["config", "check"]).ends(7).stderr;
    assert!(
        refused.contains("lifeboat.yaml:7:") && refused.contains("a probe asks one thing"),
        "{refused}"
    );
}
