//! A GET, and what has to come back. Nothing is sent that could change anything, and no redirect is followed: where it leads is another question.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_model::time::human_duration;
use lifeboat_model::{Env, Error, ErrorKind};
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Client, Response};
use serde_json::Value;

use super::{Address, Answer, Found, Header, causes, shown, tls, within};

/// An answer may be this long.
const BODY_LIMIT_BYTES: usize = 1 << 20;

/// A GET, and what has to come back.
#[derive(Debug, Clone)]
pub struct Http {
    /// Whom.
    pub url: Address,
    /// Which status it has to have.
    pub status: u16,
    /// What has to stand in it: a dotted path, and the value there.
    pub json: Vec<(String, Value)>,
    /// How long everything may take.
    pub within: Duration,
    /// A file with authorities that are trusted besides those of the machine.
    pub ca: Option<PathBuf>,
    /// What is sent besides.
    pub headers: Vec<Header>,
}

pub(super) async fn ask(env: &Env, http: &Http) -> Answer {
    let client = client(http).await?;
    let mut headers = HeaderMap::new();
    for header in &http.headers {
        let (name, value) = header.read().await?;
        headers.append(name, value);
    }
    let began = env.clock.monotonic();
    within(http.within, &http.url.to_string(), async {
        let request = client.get(http.url.0.clone()).headers(headers);
        let mut response = request.send().await.map_err(|error| unanswered(http, &error))?;
        let line = shown(&format!("{:?} {}", response.version(), response.status()));
        let status = response.status().as_u16();
        let location = response.headers().get(LOCATION).cloned();
        let body = body(&mut response).await;
        let took = human_duration(env.clock.monotonic().saturating_sub(began));
        if status != http.status {
            let mut found = Found::new(format!("it answered {line}, and {} is wanted", http.status)).seeing(format!("in {took}"));
            if let Some(location) = location {
                let to = String::from_utf8_lossy(location.as_bytes()).into_owned();
                found = found.seeing(format!("a redirect to {}, which is not followed", shown(&to)));
            }
            if let Ok(body) = &body {
                let text = shown(&String::from_utf8_lossy(body));
                if !text.is_empty() {
                    found = found.seeing(format!("it said: {text}"));
                }
            }
            return Err(found);
        }
        let body = body.map_err(|found| found.seeing(format!("{line} in {took}")))?;
        compare(&http.json, &body, Found::new(format!("{line} in {took}")))
    })
    .await
}

async fn client(http: &Http) -> Result<Client, Error> {
    let config = tls::config(http.ca.as_deref()).await?;
    Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        // What stands between would be asked instead of the application.
        .no_proxy()
        .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::new(ErrorKind::Bug, "set up", "HTTP", &error).with_source(error))
}

fn unanswered(http: &Http, error: &reqwest::Error) -> Found {
    let says = if error.is_connect() {
        format!("{} cannot be reached", http.url)
    } else {
        format!("{} gave no answer that is HTTP", http.url)
    };
    Found::new(says)
        .seeing(causes(error))
        .seeing("hint: is the application running, and does this machine reach it at this address?")
}

/// The whole body, or why it cannot be had.
async fn body(response: &mut Response) -> Result<Vec<u8>, Found> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > BODY_LIMIT_BYTES => {
                return Err(Found::new("the answer is longer than 1 MiB")
                    .seeing("hint: name a page that was made for this, such as /health"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(Found::new("the answer broke off").seeing(causes(&error))),
        }
    }
}

/// Each value against the one that is wanted; all of them are told.
fn compare(wanted: &[(String, Value)], body: &[u8], found: Found) -> Answer {
    if wanted.is_empty() {
        return Ok(found);
    }
    let document: Value = match serde_json::from_slice(body) {
        Ok(document) => document,
        Err(error) => {
            let line = found.says;
            return Err(Found::new("the answer is not JSON")
                .seeing(line)
                .seeing(shown(&error.to_string()))
                .seeing(format!("it said: {}", shown(&String::from_utf8_lossy(body)))));
        }
    };
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for (path, wanted) in wanted {
        match at(&document, path) {
            Some(value) if value == wanted => right.push(format!("{path} is {}", shown(&value.to_string()))),
            Some(value) => wrong.push(format!("{path} is {}, and {wanted} is wanted", shown(&value.to_string()))),
            None => wrong.push(format!("{path} is not there, and {wanted} is wanted")),
        }
    }
    let line = found.says;
    if wrong.is_empty() {
        return Ok(Found {
            says: line,
            evidence: right,
        });
    }
    let evidence = [wrong, right, vec![line]].concat();
    Err(Found {
        says: "the answer says something else than is wanted".to_owned(),
        evidence,
    })
}

/// What stands at a path such as `a.b.0.c`.
fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, part| match value {
        Value::Object(fields) => fields.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_through_objects_and_lists() {
        let document = json!({ "a": { "b": [{ "c": 1 }, 2] }, "0": "zero" });
        assert_eq!(at(&document, "a.b.0.c"), Some(&json!(1)));
        assert_eq!(at(&document, "a.b.1"), Some(&json!(2)));
        assert_eq!(at(&document, "0"), Some(&json!("zero")));
        for absent in ["a.b.2", "a.b.x", "a.c", "0.a", ""] {
            assert_eq!(at(&document, absent), None, "{absent}");
        }
    }

    #[test]
    fn values_are_compared_exactly() {
        let asked = |body: &str, wanted: Value| compare(&[("a".to_owned(), wanted)], body.as_bytes(), Found::new("200")).is_ok();
        assert!(asked(r#"{"a": true}"#, json!(true)));
        assert!(asked(r#"{"a": null}"#, json!(null)));
        assert!(!asked(r#"{"a": "true"}"#, json!(true)));
        assert!(!asked(r#"{"a": 1}"#, json!("1")));
        assert!(!asked("{}", json!(null)));
        assert!(!asked("no", json!(null)));
    }
}
