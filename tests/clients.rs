//! Programs that know nothing of the box, in a small internet (`fixtures/internet.py`): no proxy, no variable.

mod common;

use std::fs;
use std::process::Command;

use common::internet::Internet;
use common::{PATIENCE, Scene, program, run_for, text};
use serde_json::Value;

const WEB: &str = "203.0.113.10";

/// Runs `argv` without a box and in one; both must say `expected`.
#[track_caller]
fn says(internet: &Internet, flags: &[&str], argv: &[&str], expected: &str) {
    let (free, _) = internet.free(argv);
    free.exits(0).must(free.out.trim() == expected, "the control fetches the page");
    let flags = [&["--net-allow", "*.example.org"], flags].concat();
    let (boxed, reached) = internet.boxed(&flags, argv);
    boxed.exits(0).must(boxed.out.trim() == expected, "the program fetches the page");
    let names = |r: &&Value| r["op"] == "connect" && r["target"]["names"][0] == "v4.example.org";
    boxed.must(boxed.records.iter().any(|r| names(&r) && r["verdict"] == "allow"), "that is on record, by name");
    assert!(reached.count("connections", WEB) > 0);
}

const HELLO: &str = "hello from 203.0.113.10";

/// A program of the host that fetches a page with these arguments.
#[track_caller]
fn fetches(name: &str, args: &[&str]) {
    let internet = internet!();
    let Some(program) = program(name) else { skip!("no {name} in the system directories") };
    says(&internet, &[], &[&[text(&program)], args].concat(), HELLO);
}

#[test]
fn curl_fetches() {
    fetches("curl", &["-sS", "http://v4.example.org/"]);
}

#[test]
fn wget_fetches() {
    fetches("wget", &["-q", "-O", "-", "http://v4.example.org/"]);
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
    says(&internet, &[], &["./fetch"], HELLO);
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
        if (!channel.connect(new InetSocketAddress("v4.example.org", 7))) {
            selector.select(5000);
            if (!channel.finishConnect()) throw new Exception("not connected");
        }
        channel.write(ByteBuffer.wrap("ping".getBytes()));
        channel.keyFor(selector).interestOps(SelectionKey.OP_READ);
        selector.selectedKeys().clear();
        if (selector.select(5000) != 1) throw new Exception("nothing to read");
        ByteBuffer got = ByteBuffer.allocate(10);
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
    says(&internet, &[], &argv, "hello from 203.0.113.10, ping");
}

/// A repository is cloned over plain HTTP.
#[test]
fn git_clones() {
    let internet = internet!();
    let Some(git) = program("git") else { skip!("no git") };
    let scene = &internet.scene;
    let make = "git init -q -b main a && cd a && echo content >file && git add file \
                && git -c user.name=a -c user.email=a@example.org commit -q -m first && cd .. \
                && git clone -q --bare a srv/a.git && git -C srv/a.git update-server-info";
    fs::create_dir(scene.work.join("srv")).expect("make srv");
    scene.free_sh(make).exits(0);
    // Serves until its input ends.
    let serve = "\
import functools, http.server, subprocess, sys, threading
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('203.0.113.20', 8000), functools.partial(Quiet, directory='srv'))
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.exit(subprocess.run(sys.argv[1:]).returncode)
";
    let around = [text(&internet.python), "-c", serve];
    let clone = |to| [text(&git), "clone", "-q", "http://db.example.org:8000/a.git", to];
    let (free, _) = internet.free(&[&around[..], &clone("free")].concat());
    free.exits(0);
    let (boxed, _) = internet.boxed_under(&around, &["--net-allow", "db.example.org:8000"], &clone("boxed"));
    boxed.exits(0);
    for to in ["free", "boxed"] {
        assert_eq!(fs::read_to_string(scene.work.join(to).join("file")).expect("the clone's file"), "content\n");
    }
}
