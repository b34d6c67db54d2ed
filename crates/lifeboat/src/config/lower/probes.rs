//! What is asked of the live application.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_ops::probe::{
    Address, Asked, COMMAND_WITHIN, Certificate, Command, File, Header, Http, Place, Probe, VALID_FOR, WITHIN, WebSocket,
};
use serde_saphyr::Location;

use super::Lowering;
use crate::config::file::{
    At, CertificateProbeFile, CommandProbeFile, FileProbeFile, HttpProbeFile, Named, ProbeFile, SecretFile, SystemFile,
    WebSocketProbeFile,
};
use crate::config::problem::{Problem, SECRET_HEADERS};
use crate::config::settings::SecretRef;

/// The port of TLS where none is written.
const TLS_PORT: u16 = 443;

impl Lowering<'_> {
    /// The probes of a system, in the order in which they are written.
    pub(super) fn probes(&mut self, system: &str, content: &SystemFile) -> Vec<Probe> {
        let mut probes: Vec<Probe> = Vec::new();
        for file in content.probes.iter().flatten() {
            let Some((asked, called)) = self.asked_of_probe(file) else {
                continue;
            };
            let (name, place) = match &file.value.name {
                Some(name) => (name.value.trim().to_owned(), name.place),
                None => (called, file.place),
            };
            if name.is_empty() {
                self.problems.push(
                    Problem::at(place, "a probe without a name")
                        .label("empty")
                        .help("leave `name` out, or write one"),
                );
            }
            if probes.iter().any(|known| known.name == name) {
                self.problems.push(
                    Problem::at(place, format!("{system} has two probes called `{name}`"))
                        .label("the second one")
                        .help("give one of them another `name`: reports would not tell them apart"),
                );
            }
            probes.push(Probe { name, asked });
        }
        probes
    }

    /// Exactly one kind, and what it is called where nobody says.
    fn asked_of_probe(&mut self, probe: &At<ProbeFile>) -> Option<(Asked, String)> {
        let ProbeFile {
            name: _,
            http,
            websocket,
            command,
            certificate,
            file,
        } = &probe.value;
        let kinds = [
            http.is_some(),
            websocket.is_some(),
            command.is_some(),
            certificate.is_some(),
            file.is_some(),
        ];
        if kinds.into_iter().filter(|there| *there).count() != 1 {
            self.problems.push(
                Problem::at(probe.place, "a probe asks one thing")
                    .label("one of `http`, `websocket`, `command`, `certificate` and `file`")
                    .help("for example `{ name: health, http: { url: \"https://app.example.com/health\" } }`"),
            );
            return None;
        }
        if let Some(http) = http {
            return self.http(http);
        }
        if let Some(websocket) = websocket {
            return self.websocket(websocket);
        }
        if let Some(command) = command {
            return self.command(command);
        }
        if let Some(certificate) = certificate {
            return self.certificate(probe.place, certificate);
        }
        file.as_ref().and_then(|file| self.file_probe(file))
    }

    fn http(&mut self, file: &HttpProbeFile) -> Option<(Asked, String)> {
        let url = self.address(&file.url, &["https", "http"]);
        let status = file.status.as_ref().map_or(200, |status| status.value);
        if let Some(written) = file.status.as_ref().filter(|status| !(100..600).contains(&status.value)) {
            self.problems.push(
                Problem::at(written.place, format!("{status} is no status of HTTP")).help("a status is a number from 100 to 599"),
            );
        }
        let mut json = Vec::new();
        for (path, wanted) in file.json.iter().flatten() {
            if path.value.split('.').any(str::is_empty) {
                self.problems.push(
                    Problem::at(path.place, format!("`{}` is no path of a value", path.value))
                        .help("names and numbers with dots between them, such as `db.connected` or `nodes.0.state`"),
                );
            }
            json.push((path, wanted.value.0.clone()));
        }
        json.sort_by_key(|(path, _)| (path.place.line(), path.place.column()));
        let asked = Http {
            status,
            json: json.into_iter().map(|(path, wanted)| (path.value.clone(), wanted)).collect(),
            within: self.limit(file.within.as_ref(), WITHIN),
            ca: file.ca.as_ref().map(|path| self.path(path)),
            headers: self.headers(file.headers.as_ref()),
            url: url?,
        };
        let called = format!("GET {}", asked.url);
        Some((Asked::Http(asked), called))
    }

    fn websocket(&mut self, file: &WebSocketProbeFile) -> Option<(Asked, String)> {
        let url = self.address(&file.url, &["wss", "ws"]);
        let asked = WebSocket {
            within: self.limit(file.within.as_ref(), WITHIN),
            ca: file.ca.as_ref().map(|path| self.path(path)),
            headers: self.headers(file.headers.as_ref()),
            url: url?,
        };
        let called = format!("ping {}", asked.url);
        Some((Asked::WebSocket(asked), called))
    }

    fn command(&mut self, file: &CommandProbeFile) -> Option<(Asked, String)> {
        let within = self.limit(file.within.as_ref(), COMMAND_WITHIN);
        let run = &file.run.value;
        if run.first().is_none_or(|program| program.trim().is_empty()) || run.iter().any(|word| word.contains('\0')) {
            self.problems.push(
                Problem::at(file.run.place, "the command is empty")
                    .help("write the program and its arguments: `run: [./smoke.sh, --quick]`"),
            );
            return None;
        }
        let asked = Command {
            run: run.clone(),
            folder: self.folder.to_path_buf(),
            within,
        };
        // Arguments may hold what does not belong into a report.
        let called = run.first().map_or_else(String::new, |program| format!("run {program}"));
        Some((Asked::Command(asked), called))
    }

    fn certificate(&mut self, place: Location, file: &CertificateProbeFile) -> Option<(Asked, String)> {
        let valid_for = match &file.valid_for {
            Some(text) => self.duration(text, "valid_for", "30d"),
            None => VALID_FOR,
        };
        let limit = self.limit(file.within.as_ref(), WITHIN);
        let ca = file.ca.as_ref().map(|path| self.path(path));
        let (place, called) = match (&file.host, &file.file) {
            (Some(host), None) => {
                let (name, port) = self.host(host)?;
                let called = format!("certificate of {}", host.value.trim());
                (self::host(name, port, limit, ca), called)
            }
            (None, Some(path)) => {
                for (word, other) in [("within", &file.within), ("ca", &file.ca)] {
                    if let Some(other) = other {
                        self.problems
                            .push(Problem::at(other.place, format!("`{word}` belongs to `host`")).help("leave it out"));
                    }
                }
                let path = self.path(path);
                let called = format!("certificates in {}", path.display());
                (Place::File(path), called)
            }
            _ => {
                self.problems.push(
                    Problem::at(place, "certificates are in one place")
                        .label("one of `host` and `file`")
                        .help("write `{ host: \"app.example.com:443\" }` or `{ file: certs/server.pem }`"),
                );
                return None;
            }
        };
        Some((Asked::Certificate(Certificate { place, valid_for }), called))
    }

    fn file_probe(&mut self, file: &FileProbeFile) -> Option<(Asked, String)> {
        if let Some(empty) = file.contains.as_ref().filter(|text| text.value.is_empty()) {
            self.problems.push(
                Problem::at(empty.place, "every file contains this")
                    .label("empty")
                    .help("leave `contains` out"),
            );
        }
        let path = self.path(&file.path);
        let called = format!("file {}", path.display());
        let asked = File {
            path,
            contains: file.contains.as_ref().map(|text| text.value.clone()),
            max_age: file.max_age.as_ref().map(|text| self.some_duration(text, "max_age", "7d")),
        };
        Some((Asked::File(asked), called))
    }

    fn limit(&mut self, text: Option<&At<String>>, default: Duration) -> Duration {
        match text {
            Some(text) => self.some_duration(text, "within", "10s"),
            None => default,
        }
    }

    fn address(&mut self, url: &At<String>, schemes: &[&str]) -> Option<Address> {
        match Address::parse(&url.value, schemes) {
            Ok(address) => Some(address),
            Err(error) => {
                let help = error.hint().map_or_else(
                    || format!("write it as {}://HOST/PATH", schemes.first().unwrap_or(&"https")),
                    str::to_owned,
                );
                self.problems.push(
                    Problem::at(url.place, "the url cannot be asked")
                        .label(error.detail().to_owned())
                        .help(help),
                );
                None
            }
        }
    }

    /// `HOST:PORT`, an address with colons in brackets.
    fn host(&mut self, host: &At<String>) -> Option<(String, u16)> {
        let text = host.value.trim();
        let split = match text.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => port.parse().ok().map(|port| (name, port)),
            _ => Some((text, TLS_PORT)),
        };
        let plain = split.map(|(name, port)| (name.trim_start_matches('[').trim_end_matches(']'), port));
        match plain {
            Some((name, port)) if !name.is_empty() && !name.contains(['/', ' ', '@']) && port > 0 => {
                Some((name.to_owned(), port))
            }
            _ => {
                self.problems.push(
                    Problem::at(host.place, format!("`{text}` is no host and port"))
                        .help("write `host: \"app.example.com:443\"`; without a port it is 443"),
                );
                None
            }
        }
    }

    /// A header is text, or a reference to a secret that is read when it is sent.
    fn headers(&mut self, headers: Option<&Named<At<SecretFile>>>) -> Vec<Header> {
        let (mut all, mut names) = (Vec::new(), BTreeSet::new());
        for (name, value) in headers.into_iter().flatten() {
            let lower = name.value.to_ascii_lowercase();
            let secret = match &value.value {
                SecretFile::Inline(text) if !SECRET_HEADERS.contains(&lower.as_str()) => Some(SecretRef::Inline(text.clone())),
                _ => self.secret(value, &format!("the header {}", name.value), &name.value),
            };
            if !names.insert(lower) {
                self.problems.push(
                    Problem::at(name.place, format!("the header `{}` stands here twice", name.value)).label("the second time"),
                );
            }
            let Some(secret) = secret else { continue };
            let read = move || {
                let secret = secret.clone();
                async move { Ok(secret.read().await?.to_string()) }
            };
            match Header::new(&name.value, read) {
                Ok(header) => all.push(header),
                Err(error) => self.problems.push(
                    Problem::at(name.place, format!("the header `{}` cannot be sent", name.value))
                        .label(error.detail().to_owned())
                        .help("write another name, or leave it out"),
                ),
            }
        }
        all
    }
}

fn host(host: String, port: u16, within: Duration, ca: Option<PathBuf>) -> Place {
    Place::Host { host, port, within, ca }
}
