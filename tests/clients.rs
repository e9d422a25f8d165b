//! Programs that know nothing of the box, in a small internet (`fixtures/internet.py`): no proxy, no variable, with each
//! runtime's own way to look names up and to wait.
//!
//! Each runs free, then where a rule lets it, then where the rule is for another port: then nothing of it may arrive.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::internet::Internet;
use common::{Outcome, PATIENCE, Scene, program, run_for, text};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const BESIDE: &str = include_str!("fixtures/beside.py");
const REGISTRY: &str = include_str!("fixtures/registry.py");

/// Whom a program is to reach: by which name, and where that is.
#[derive(Clone, Copy)]
struct Service {
    name: &'static str,
    ip: &'static str,
    port: u16,
}

const WEB: Service = Service { name: "v4.example.org", ip: "203.0.113.10", port: 80 };

/// A server of the test's own, at the port.
const fn at_port(port: u16) -> Service {
    Service { name: "db.example.org", ip: "203.0.113.20", port }
}

/// Connections to the service that are on record with its name and address, by verdict: the rule of each.
fn connects<'a>(boxed: &'a Outcome, to: Service, verdict: &str) -> Vec<&'a str> {
    let address = format!("{}:{}", to.ip, to.port);
    let fits = |r: &&Value| r["op"] == "connect" && r["target"]["address"] == *address && r["verdict"] == verdict;
    let named = |r: &&Value| r["target"]["names"].as_array().is_some_and(|names| names.contains(&to.name.into()));
    let rule = |r: &'a Value| r["rule"].as_str().expect("a rule");
    boxed.records.iter().filter(fits).filter(named).map(rule).collect()
}

/// Runs `argv` beside a server, if `around` is one, as the head of this file says. It prints `expected` if it succeeds.
#[track_caller]
fn reaches(internet: &Internet, around: &[&str], argv: &[&str], to: Service, expected: &str) {
    let (free, _) = internet.free(&[around, argv].concat());
    free.exits(0).must(free.out.contains(expected), "the control is served");

    let rule = format!("{}:{}", to.name, to.port);
    let (boxed, reached) = internet.boxed_under(around, &["--net-allow", &rule], argv);
    boxed.exits(0).must(boxed.out.contains(expected), "it is served in the box");
    let rules = connects(&boxed, to, "allow");
    boxed.must(!rules.is_empty(), "that is on record: name, address and port");
    let its = format!("command line --net-allow {rule}");
    boxed.must(rules.iter().all(|found| **found == its), &format!("each by its rule: {rules:?}"));
    boxed.must(reached.count("packets", to.ip) > 0, "packets are counted");

    let other = format!("{}:1", to.name);
    let (boxed, reached) = internet.boxed_under(around, &["--net-allow", &other], argv);
    boxed.must(boxed.code != 0 && !boxed.out.contains(expected), "it is not served");
    boxed.must(!connects(&boxed, to, "deny").is_empty(), "the refusal is on record: name, address and port");
    boxed.must(connects(&boxed, to, "allow").is_empty(), "nothing else is");
    let counts = ["packets", "connections", "bytes"].map(|what| reached.count(what, to.ip));
    boxed.must(counts == [0; 3], &format!("something arrived: {counts:?}"));
}

const HELLO: &str = "hello from 203.0.113.10";

/// A program of the host that fetches a page with these arguments.
#[track_caller]
fn fetches(name: &str, args: &[&str]) {
    let internet = internet!();
    let Some(program) = program(name) else { skip!("no {name} in the system directories") };
    reaches(&internet, &[], &[&[text(&program)], args].concat(), WEB, HELLO);
}

#[test]
fn curl_fetches() {
    fetches("curl", &["-sS", "http://v4.example.org/"]);
}

#[test]
fn wget_fetches() {
    fetches("wget", &["-q", "--tries=1", "-O", "-", "http://v4.example.org/"]);
}

/// Linked statically: no library stands between it and the kernel.
#[test]
fn busybox_fetches() {
    fetches("busybox", &["wget", "-q", "-O", "-", "http://v4.example.org/"]);
}

#[test]
fn node_fetches() {
    fetches("node", &["-e", "fetch('http://v4.example.org/').then(r => r.text()).then(t => console.log(t.trim()))"]);
}

#[test]
fn python_fetches_with_urllib() {
    let fetch = "import urllib.request as r; print(r.urlopen('http://v4.example.org').read().decode())";
    fetches("python3", &["-c", fetch]);
}

/// Non-blocking connects, watched by epoll, many at a time.
#[test]
fn python_fetches_with_asyncio() {
    let fetch = "\
import asyncio
async def fetch():
    reader, writer = await asyncio.open_connection('v4.example.org', 80)
    writer.write(b'GET / HTTP/1.0\\r\\n\\r\\n')
    await reader.readuntil(b'\\r\\n\\r\\n')
    line = await reader.readline()
    writer.close()
    return line.decode().strip()
async def main():
    print(*set(await asyncio.gather(*[fetch() for _ in range(100)])))
asyncio.run(main())
";
    fetches("python3", &["-c", fetch]);
}

/// Compiles once per user, outside of any box.
fn built(scene: &Scene, mut command: Command) {
    scene.dress(&mut command);
    command.env("GOCACHE", common::base().join(format!("agentbox-go-{}", nix::unistd::geteuid())));
    command.env("CGO_ENABLED", "0").env("GO111MODULE", "off");
    run_for(PATIENCE, command).exits(0);
}

/// Go asks the name server itself, and has no C library.
#[test]
fn go_fetches() {
    let internet = internet!();
    let Some(go) = program("go") else { skip!("no Go compiler (go)") };
    const FETCH: &str = r#"package main
import ("fmt"; "io"; "net/http"; "os")
func main() {
    answer, err := http.Get("http://v4.example.org/")
    if err != nil { fmt.Println(err); os.Exit(1) }
    body, _ := io.ReadAll(answer.Body)
    fmt.Print(string(body))
}
"#;
    internet.scene.file("home/work/fetch.go", FETCH);
    let mut command = Command::new(go);
    command.args(["build", "-o", "fetch", "fetch.go"]);
    built(&internet.scene, command);
    reaches(&internet, &[], &["./fetch"], WEB, HELLO);
}

/// A selector is an epoll instance that knows the socket before it is connected.
#[test]
fn java_fetches_by_stream_and_by_selector() {
    let internet = internet!();
    let (Some(java), Some(_)) = (program("java"), program("javac")) else { skip!("no Java (java, javac)") };
    const FETCH: &str = r#"
import java.net.*; import java.nio.*; import java.nio.channels.*;
public class Fetch {
    public static void main(String[] args) throws Exception {
        byte[] page = new URL("http://v4.example.org/").openStream().readAllBytes();
        Selector selector = Selector.open();
        SocketChannel channel = SocketChannel.open();
        channel.configureBlocking(false);
        channel.register(selector, SelectionKey.OP_CONNECT);
        if (!channel.connect(new InetSocketAddress("v4.example.org", 80))) {
            selector.select(5000);
            if (!channel.finishConnect()) throw new Exception("not connected");
        }
        channel.write(ByteBuffer.wrap("GET / HTTP/1.0\r\n\r\n".getBytes()));
        channel.keyFor(selector).interestOps(SelectionKey.OP_READ);
        selector.selectedKeys().clear();
        if (selector.select(5000) != 1) throw new Exception("nothing to read");
        ByteBuffer got = ByteBuffer.allocate(4);
        if (channel.read(got) != 4) throw new Exception("too little");
        System.out.println(new String(page).trim() + ", " + new String(got.array(), 0, 4));
    }
}
"#;
    internet.scene.file("home/work/Fetch.java", FETCH);
    let mut command = Command::new("javac");
    command.args(["-J-XX:TieredStopAtLevel=1", "-nowarn", "Fetch.java"]);
    built(&internet.scene, command);
    let argv = [text(&java), "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData", "-cp", ".", "Fetch"];
    reaches(&internet, &[], &argv, WEB, "hello from 203.0.113.10, HTTP");
}

/// Linked statically, on tokio: the test's own executable, started again.
#[test]
fn tokio_fetches() {
    const AS_A_PROGRAM: &str = "as-a-program";
    if std::env::args().any(|arg| arg == AS_A_PROGRAM) {
        return fetch_with_tokio();
    }
    let internet = internet!();
    let itself = std::env::current_exe().expect("this program");
    fs::copy(itself, internet.scene.work.join("fetch")).expect("copy this program");
    reaches(&internet, &[], &["./fetch", "--exact", "tokio_fetches", "--nocapture", AS_A_PROGRAM], WEB, HELLO);
}

fn fetch_with_tokio() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut stream = TcpStream::connect((WEB.name, WEB.port)).await.expect("connect");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("ask");
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await.expect("read") {
            println!("{line}");
            if line == HELLO {
                break;
            }
        }
    });
}

/// A Python library that fetches the page with this expression; `module` must be there.
#[track_caller]
fn python_fetches(module: &str, expression: &str) {
    let internet = internet!();
    let line = format!("import {module}; print({expression})");
    let python = text(&internet.python);
    let (has, _) = internet.free(&[python, "-c", &format!("import {module}")]);
    if has.code != 0 {
        skip!("the system's Python has no {module}");
    }
    reaches(&internet, &[], &[python, "-c", &line], WEB, HELLO);
}

#[test]
fn python_fetches_with_requests() {
    python_fetches("requests", "requests.get('http://v4.example.org/').text");
}

#[test]
fn python_fetches_with_httpx() {
    python_fetches("httpx", "httpx.get('http://v4.example.org/').text");
}

// Servers of their own, beside the command.

/// What runs a command beside `server`, once that has said that it is `ready`.
fn beside<'a>(internet: &'a Internet, ready: &'a str, server: &[&'a str]) -> Vec<&'a str> {
    internet.scene.file("beside.py", BESIDE);
    let start = [text(&internet.python), "../../beside.py", ready];
    [&start, server, &["--"]].concat()
}

/// Runs `argv` beside a registry of packages.
#[track_caller]
fn installs(internet: &Internet, argv: &[&str], expected: &str) {
    let (registry, to) = (internet.scene.file("registry.py", REGISTRY), at_port(8000));
    let server = [text(&internet.python), text(&registry), to.ip, "8000", to.name];
    reaches(internet, &beside(internet, "it serves", &server), argv, to, expected);
}

/// A repository is cloned over plain HTTP.
#[test]
fn git_clones() {
    let internet = internet!();
    let Some(git) = program("git") else { skip!("no git") };
    repository(&internet.scene);
    let clone = format!(
        "to=$(mktemp -d to.XXXXXX) && {} clone -q http://db.example.org:8000/a.git $to && cat $to/file",
        text(&git)
    );
    installs(&internet, &["sh", "-c", &clone], "content\n");
}

/// Makes `a.git` in the workspace, with one file.
fn repository(scene: &Scene) {
    let make = "git init -q -b main a && cd a && echo content >file && git add file \
                && git -c user.name=a -c user.email=a@example.org commit -q -m first && cd .. \
                && git clone -q --bare a a.git && git -C a.git update-server-info";
    scene.free_sh(make).exits(0);
}

#[test]
fn pip_installs_from_a_registry() {
    let internet = internet!();
    let Some(pip) = program("pip").or_else(|| program("pip3")) else { skip!("no pip in the system directories") };
    let install = format!(
        "rm -rf to && {} install --quiet --retries 0 --no-cache-dir --disable-pip-version-check --target to --index-url \
         http://db.example.org:8000/simple/ --trusted-host db.example.org thing && {} to/thing.py",
        text(&pip),
        text(&internet.python)
    );
    installs(&internet, &["sh", "-c", &install], "hello from thing");
}

#[test]
fn npm_installs_from_a_registry() {
    let internet = internet!();
    let (Some(npm), Some(node)) = (program("npm"), program("node")) else { skip!("no npm (npm, node)") };
    let install = format!(
        "rm -rf node_modules cache package*.json && {} install --silent --no-audit --no-fund --no-update-notifier \
         --fetch-retries 0 --cache cache --registry http://db.example.org:8000/ thing && {} node_modules/thing",
        text(&npm),
        text(&node)
    );
    installs(&internet, &["sh", "-c", &install], "hello from thing");
}

/// Makes root of the test, or of its namespace, an ordinary user, as servers ask for that do not serve as root.
const AS_USER: [&str; 4] = ["unshare", "-U", "--map-user=65534", "--map-group=65534"];

/// The server runs as the one user that there is, whom a `passwd` of its own gives a shell.
#[test]
fn ssh_runs_a_command_and_git_clones_by_it() {
    let internet = internet!();
    let (Some(ssh), Some(sshd)) = (program("ssh"), program("sshd")) else { skip!("no OpenSSH (ssh, sshd)") };
    let scene = &internet.scene;
    repository(scene);
    let place = text(&scene.work);
    for key in ["host", "key"] {
        scene.free(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]).exits(0);
    }
    let public = |key: &str| fs::read_to_string(scene.work.join(format!("{key}.pub"))).expect("a public key");
    scene.file("home/work/known", format!("[db.example.org]:2222 {}", public("host")));
    scene.file("home/work/passwd", format!("tester:x:65534:65534::{place}:/bin/sh\n"));
    let config = format!(
        "ListenAddress 203.0.113.20:2222\nHostKey {place}/host\nAuthorizedKeysFile {place}/key.pub\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\n"
    );
    scene.file("home/work/sshd_config", config);
    let serve = format!(
        "mount --bind {place}/passwd /etc/passwd && exec {} {} -D -e -f {place}/sshd_config",
        AS_USER.join(" "),
        text(&sshd)
    );
    let server = ["unshare", "-m", "--propagation", "private", "sh", "-c", &serve];
    let around = beside(&internet, "Server listening", &server);
    let options = format!(
        "{} -F none -i {place}/key -o IdentityAgent=none -o BatchMode=yes -o UserKnownHostsFile={place}/known",
        text(&ssh)
    );
    let to = at_port(2222);
    let command = format!("{options} -p 2222 tester@db.example.org 'echo hello from $((6 * 7))'");
    reaches(&internet, &around, &["sh", "-c", &command], to, "hello from 42");

    let Some(git) = program("git") else { skip!("no git") };
    let clone = format!(
        "to=$(mktemp -d to.XXXXXX) && GIT_SSH_COMMAND='{options}' {} clone -q \
         ssh://tester@db.example.org:2222{place}/a.git $to && cat $to/file",
        text(&git)
    );
    reaches(&internet, &around, &["sh", "-c", &clone], to, "content\n");
}

/// Runs a client against a unix socket in the workspace: free, listed, and not listed.
#[track_caller]
fn reaches_socket(internet: &Internet, around: &[&str], argv: &[&str], socket: &Path, expected: &str) {
    let (free, _) = internet.free(&[around, argv].concat());
    free.exits(0).must(free.out.contains(expected), "the control is served");
    let decided = |boxed: &Outcome, verdict: &str| -> Vec<String> {
        let fits = |r: &&Value| r["op"] == "connect" && r["target"]["path"] == *text(socket) && r["verdict"] == verdict;
        let rule = |r: &Value| r["rule"].as_str().expect("a rule").to_string();
        boxed.records.iter().filter(fits).map(rule).collect()
    };
    let (boxed, _) = internet.boxed_under(around, &["--net-unix", text(socket)], argv);
    boxed.exits(0).must(boxed.out.contains(expected), "it is served in the box");
    let its = format!("command line --net-unix {}", text(socket));
    boxed.must(decided(&boxed, "allow").contains(&its), "that is on record, by its rule");
    let (boxed, _) = internet.boxed_under(around, &[], argv);
    boxed.must(boxed.code != 0 && !boxed.out.contains(expected), "it is not served");
    boxed.must(!decided(&boxed, "deny").is_empty() && decided(&boxed, "allow").is_empty(), "that is on record");
}

#[test]
fn redis_answers_by_tcp_and_by_a_unix_socket() {
    let internet = internet!();
    let (Some(server), Some(client)) = (program("redis-server"), program("redis-cli")) else {
        skip!("no Redis (redis-server, redis-cli)")
    };
    let scene = &internet.scene;
    let (socket, to) = (scene.work.join("redis.sock"), at_port(6379));
    let listens = ["--bind", to.ip, "--port", "6379", "--protected-mode", "no", "--unixsocket", text(&socket)];
    let server = [&[text(&server)], &listens[..], &["--save", ""]].concat();
    let around = beside(&internet, "eady to accept connections", &server);
    let ask = ["SET", "key", "value"];
    let by_name = [&[text(&client), "-h", to.name, "-p", "6379"], &ask[..]].concat();
    reaches(&internet, &around, &by_name, to, "OK");
    let by_path = [&[text(&client), "-s", text(&socket)], &ask[..]].concat();
    reaches_socket(&internet, &around, &by_path, &socket, "OK");
}

/// A program of PostgreSQL, which lies among the system's programs or in a directory of its version.
fn postgres(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let own = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    own.or_else(|| program(name))
}

#[test]
fn postgresql_answers_by_tcp_and_by_a_unix_socket() {
    let internet = internet!();
    let (Some(initdb), Some(server), Some(client)) = (postgres("initdb"), postgres("postgres"), postgres("psql"))
    else {
        skip!("no PostgreSQL (initdb, postgres, psql)")
    };
    let scene = &internet.scene;
    if scene.free(&[&AS_USER[..], &["true"]].concat()).code != 0 {
        skip!("no user namespace to be an ordinary user in, as the server must be");
    }
    let data = scene.root.join("data");
    let make = [text(&initdb), "-D", text(&data), "-A", "trust", "-U", "test", "--no-sync", "--no-locale"];
    scene.free(&[&AS_USER[..], &make].concat()).exits(0);
    // Its listeners are the wide open kind; who may come is not the server's affair here.
    scene.file("data/pg_hba.conf", "local all all trust\nhost all all 0.0.0.0/0 trust\n");
    let (socket, to) = (scene.work.join(".s.PGSQL.5433"), at_port(5433));
    let listens = ["-D", text(&data), "-h", to.ip, "-p", "5433", "-k", text(&scene.work)];
    let server = [&AS_USER[..], &[text(&server)], &listens].concat();
    let around = beside(&internet, "ready to accept connections", &server);
    let ask = ["-p", "5433", "-U", "test", "-d", "postgres", "-XAtc", "select 6 * 7"];
    let by_name = [&[text(&client), "-h", to.name], &ask[..]].concat();
    reaches(&internet, &around, &by_name, to, "42\n");
    let by_path = [&[text(&client), "-h", text(&scene.work)], &ask[..]].concat();
    reaches_socket(&internet, &around, &by_path, &socket, "42\n");
}
