//! Spans to a collector: OTLP over HTTP with JSON, as the variables of OpenTelemetry say.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Error};

use crate::audit::otlp::percent_decoded;
use crate::audit::text::{hex, printable, shorten};
use crate::net::lookup::Lookup;

/// How long one request may take unless a variable says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read of an answer.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Where the host keeps the certificates that it trusts, by distribution.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why a collector did not take a request.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It was not reached, or has not answered in time.
    Unreached(anyhow::Error),
    /// It says to come again, perhaps after how long.
    Busy(anyhow::Error, Option<Duration>),
    /// It has answered, and will answer the same again.
    Final(anyhow::Error),
}

impl From<Refusal> for anyhow::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unreached(why) | Refusal::Busy(why, _) | Refusal::Final(why) => why,
        }
    }
}

/// A collector, and how to reach it.
#[derive(Debug)]
pub(super) struct Collector {
    url: String,
    headers: Vec<(String, String)>,
    agent: Agent,
}

impl Collector {
    /// Reads the variables; `None` where none names a collector.
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        // What is said of traces alone wins over what is said of all.
        let said = |name: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
            names.into_iter().find_map(|name| variable(&name).map(|value| (name, value)))
        };
        let Some((from, endpoint)) = said("ENDPOINT") else { return Ok(None) };
        let url = match from.contains("TRACES") {
            true => endpoint,
            false => format!("{}/v1/traces", endpoint.trim_end_matches('/')),
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("{from} must begin with http:// or https://, such as http://127.0.0.1:4318");
        }
        if let Some((name, _)) = said("PROTOCOL").filter(|(_, protocol)| protocol == "grpc") {
            bail!(
                "{name} is grpc, and agentbox speaks OTLP over HTTP: set it to http/json, and {from} to the HTTP \
                 port (4318)"
            );
        }
        let timeout = match said("TIMEOUT") {
            None => TIMEOUT,
            Some((name, text)) => {
                milliseconds(&text).with_context(|| format!("{name} must be milliseconds, not `{text}`"))?
            }
        };
        let headers = said("HEADERS").map(|(_, text)| headers(&text)).unwrap_or_default();
        let tls = match url.starts_with("https://") {
            true => {
                Some(tls(said("CERTIFICATE").or_else(|| Some(("SSL_CERT_FILE".into(), variable("SSL_CERT_FILE")?))))?)
            }
            false => None,
        };
        Ok(Some(Self { url, headers, agent: agent(timeout, tls) }))
    }

    /// Names the collector, without what an address may hold of secrets.
    pub(super) fn told(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let rest = rest.split('?').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    }

    /// Tells this collector from any other, and from the same one under other headers: a key may name whose traces these
    /// are. What it is drawn from cannot be read back out of it.
    pub(super) fn key(&self) -> String {
        let mut digest = Sha256::new_with_prefix(&self.url);
        for (name, value) in &self.headers {
            digest.update(format!("\0{name}\0{value}"));
        }
        hex(&digest.finalize()[..8])
    }

    /// Makes a request, once.
    fn send(&self, body: &[u8]) -> Result<(), Refusal> {
        let answer = self.post(body).map_err(Refusal::Unreached)?;
        let after = match answer.status().as_u16() {
            429 | 502 | 503 | 504 => Some(retry_after(&answer)),
            _ => None,
        };
        taken(answer).map_err(|why| match after {
            Some(after) => Refusal::Busy(why, after),
            None => Refusal::Final(why),
        })
    }

    fn post(&self, body: &[u8]) -> Result<ureq::http::Response<Body>> {
        let mut request = self.agent.post(&self.url).content_type("application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.send(body)?)
    }
}

/// A thread that waits for a collector, so that who feeds it can look around meanwhile.
pub(super) struct Line {
    requests: Sender<Arc<[u8]>>,
    answers: Receiver<Result<(), Refusal>>,
}

impl Line {
    /// Starts it. It ends when nobody feeds it any more, or with the process.
    pub(super) fn open(collector: Collector) -> Result<Self> {
        let (requests, waiting) = mpsc::channel::<Arc<[u8]>>();
        let (answered, answers) = mpsc::channel();
        let work = move || waiting.iter().take_while(|body| answered.send(collector.send(body)).is_ok()).for_each(drop);
        let thread = thread::Builder::new().name("collector".into());
        thread.spawn(work).context("cannot start the thread that sends")?;
        Ok(Self { requests, answers })
    }

    /// Makes a request. Each is answered once.
    pub(super) fn ask(&self, body: Arc<[u8]>) {
        // If the thread is gone the answer says so.
        let _ = self.requests.send(body);
    }

    /// The answer to the last request, if it comes within `limit`.
    pub(super) fn answer(&self, limit: Duration) -> Option<Result<(), Refusal>> {
        match self.answers.recv_timeout(limit) {
            Ok(answer) => Some(answer),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Some(Err(Refusal::Final(anyhow!("the thread that sends has ended"))))
            }
        }
    }
}

fn agent(timeout: Duration, tls: Option<TlsConfig>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(timeout))
        .user_agent(concat!("agentbox/", env!("CARGO_PKG_VERSION")));
    let config = match tls {
        Some(tls) => config.tls_config(tls),
        None => config,
    };
    // agentbox is static: names are looked up by its own means.
    Agent::with_parts(config.build(), DefaultConnector::default(), Names(Lookup::new(timeout)))
}

/// How ureq looks names up.
#[derive(Debug)]
struct Names(Lookup);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        // More than these are not tried.
        const MOST: usize = 8;
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut resolved = self.empty();
        self.0.addresses(host).into_iter().take(MOST).for_each(|ip| resolved.push(SocketAddr::new(ip, port)));
        if resolved.is_empty() { Err(Error::HostNotFound) } else { Ok(resolved) }
    }
}

/// TLS with the certificates of the file that a variable names, else with the host's own.
fn tls(named: Option<(String, String)>) -> Result<TlsConfig> {
    const HELP: &str = "set OTEL_EXPORTER_OTLP_CERTIFICATE to a file of certificates (PEM)";
    let path = match &named {
        Some((_, path)) => Path::new(path),
        None => ROOTS.map(Path::new).into_iter().find(|path| path.is_file()).with_context(|| {
            format!("this host has no certificates where they are looked for, so https cannot be trusted: {HELP}")
        })?,
    };
    let pem = std::fs::read(path).with_context(|| format!("cannot read the certificates in {}", path.display()))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        bail!("no certificates in {}: {HELP}", path.display());
    }
    let config =
        TlsConfig::builder().provider(TlsProvider::Rustls).root_certs(RootCerts::new_with_certs(&certificates));
    Ok(config.unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider())).build())
}

fn milliseconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// `name=value` with commas between, values percent-encoded.
fn headers(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_string(), percent_decoded(value.trim()))).collect()
}

fn retry_after(answer: &ureq::http::Response<Body>) -> Option<Duration> {
    let seconds = answer.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether the collector took all of it.
fn taken(mut answer: ureq::http::Response<Body>) -> Result<()> {
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec().unwrap_or_default();
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        let message =
            said["message"].as_str().map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_string);
        let message = printable(&shorten(message.trim(), 300));
        let colon = if message.is_empty() { "" } else { ": " };
        bail!("the collector answered {status}{colon}{message}");
    }
    let partial = &said["partialSuccess"];
    let rejected =
        partial["rejectedSpans"].as_str().and_then(|text| text.parse().ok()).or(partial["rejectedSpans"].as_u64());
    if let Some(rejected @ 1..) = rejected {
        let message = printable(&shorten(partial["errorMessage"].as_str().unwrap_or_default(), 300));
        bail!("the collector refused {rejected} spans: {message}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(variables: &[(&str, &str)]) -> Result<Option<Collector>> {
        Collector::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn the_variables_mean_what_the_specification_says() {
        let url = |variables: &[(&str, &str)]| collector(variables).unwrap().map(|collector| collector.url);
        assert_eq!(url(&[]), None);
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/x");
        assert_eq!(url(&[general]).as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(url(&[general, traces]).as_deref(), Some("http://127.0.0.1:9/x"), "as it is");
        let set = collector(&[general, ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%20c, authorization=Basic x=")]).unwrap();
        let expected = [("a", "b c"), ("authorization", "Basic x=")].map(|(k, v)| (k.to_string(), v.to_string()));
        assert_eq!(set.unwrap().headers, expected);
        let told = collector(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@h:1/p?key=x")]).unwrap().unwrap();
        assert_eq!(told.told(), "http://h:1/p");
        for (bad, said) in [
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")][..], "must begin with http://"),
            (&[general, ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")], "must be milliseconds"),
            (&[general, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "http/json"),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent")],
                "cannot read the certificates",
            ),
        ] {
            let error = collector(bad).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
