//! The import table of the design: which room may use which. A line that breaks it is a second road in the making.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms and what each may import besides itself. A room that is not here fails the test: add it with its row.
const TABLE: &[(&str, &[&str])] = &[
    ("event", &[]),
    ("syscalls", &[]),
    ("cli", &[]),
    ("sys", &[]),
    ("host", &["sys"]),
    // `load` alone turns flags into rules; it takes them as plain data.
    ("policy", &["event"]),
    ("plan", &["policy", "event", "syscalls", "host"]),
    ("sandbox", &["plan", "sys"]),
    ("approve", &["event"]),
    ("audit", &["event"]),
    ("gate", &["policy", "event", "approve", "audit"]),
    ("net", &["event", "gate", "sys"]),
    ("annotate", &["event", "sys"]),
    ("supervisor", &["gate", "plan", "syscalls", "event", "net", "sys"]),
    ("workspace", &["plan", "sys"]),
];

/// Rooms that may use everything.
const OPEN: &[&str] = &["cmd", "main", "lib"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("list the sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The room a file belongs to: its first component below `src`, without the extension.
fn room(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).expect("below src").components().next().expect("a name");
    Path::new(first.as_os_str()).with_extension("").to_string_lossy().into_owned()
}

/// The code of a file: no comments, no test modules at its end, no string contents that look like paths.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The rooms that code names after `crate::`, also inside a group such as `use crate::{a::B, c}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.push(std::mem::take(&mut name));
                        continue;
                    }
                    _ => {}
                }
                name.push(c);
            }
            found.push(name);
        } else {
            found.push(rest.to_string());
        }
    }
    let word = |text: String| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    found.into_iter().map(word).filter(|name| !name.is_empty()).collect()
}

#[test]
fn imports_are_read_in_every_shape() {
    let text = "use crate::event::{A, B};\nuse crate::{sys, plan::{X, Y}, host::Z};\nlet x = crate::audit::f();\n// crate::no\n";
    assert_eq!(imports(&code(text)), ["event", "sys", "plan", "host", "audit"]);
    assert_eq!(imports(&code("use a;\n#[cfg(test)]\nmod tests {\n    use crate::cmd;\n}\n")), [""; 0]);
}

#[test]
fn each_room_imports_only_what_the_table_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    if fs::read_dir(&src).is_err() {
        println!("skipped: the sources are not readable by this user");
        return;
    }
    let table: BTreeMap<&str, &[&str]> = TABLE.iter().copied().collect();
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 3, "no sources in {}", src.display());
    let mut wrong = Vec::new();
    for file in files {
        let room = room(&src, &file);
        let text = fs::read_to_string(&file).expect("read a source");
        if room != "sys" && code(&text).contains("allow(unsafe_code") {
            wrong.push(format!("{}: unsafe code outside of sys", file.display()));
        }
        if OPEN.contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(room.as_str()) else {
            wrong.push(format!("{}: room `{room}` has no row in the table", file.display()));
            continue;
        };
        // Only known rooms and open ones count: `crate::Name` may also be an item of lib.rs itself.
        let known = |name: &String| table.contains_key(name.as_str()) || OPEN.contains(&name.as_str());
        for import in imports(&code(&text)).into_iter().filter(known) {
            if import != room && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: `{room}` imports `{import}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the table:\n{}", wrong.join("\n"));
}
