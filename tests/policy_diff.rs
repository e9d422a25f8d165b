//! `agentbox policy diff`: two policies are compared, and what is told holds in a box.

mod common;

use common::{Scene, text};
use serde_json::Value;

#[test]
fn a_policy_and_itself_permit_the_same() {
    let scene = Scene::new();
    let shown = scene.agentbox(&["policy", "show", "-p", "default", "--json"]);
    let shown: Value = serde_json::from_str(&shown.out).expect("JSON");
    let same = scene.agentbox(&["policy", "diff", "default", "default"]);
    let expected =
        format!("default.yaml and default.yaml permit the same (digest {})\n", shown["digest"].as_str().unwrap());
    assert_eq!((same.code, same.out.as_str(), same.err.as_str()), (0, expected.as_str(), ""));
    let json: Value =
        serde_json::from_str(&scene.agentbox(&["policy", "diff", "default", "default", "--json"]).out).unwrap();
    assert_eq!((&json["same"], &json["a"]), (&true.into(), &json["b"]));
    // Another file that says the same.
    let (one, two) = (scene.file("m.yaml", "version: 1\nextends: [default]\n"), scene.root.join("n.yaml"));
    scene.file("n.yaml", "version: 1\nextends: [default]\nfilesystem: {write: [.]}\n");
    scene.agentbox(&["policy", "diff", text(&one), text(&two)]).exits(0);
}

#[test]
fn what_is_told_is_what_a_box_lets_through() {
    let scene = Scene::new();
    scene.file("outside/f", "old\n");
    scene.file("home/work/.env", "s\n");
    let outside = text(&scene.outside);
    let a = scene.file("a.yaml", "version: 1\nextends: [default]\n");
    let rules = format!(
        "filesystem: {{write: [{outside}], deny: [\"**/.env\"]}}\nexec: {{deny: [uname]}}\n\
         network: {{mode: rules, allow: [a.test]}}"
    );
    let b = scene.file("b.yaml", format!("version: 1\nextends: [default]\n{rules}\n"));
    let told = scene.agentbox(&["policy", "diff", text(&a), text(&b)]);
    told.exits(1);
    let name = text(&b);
    for line in [
        format!("  may read and change {outside} as it is outside   ({name} filesystem.write[0])"),
        format!("  may reach a.test   ({name} network.allow[0])"),
        format!("  may not read or change **/.env   ({name} filesystem.deny[0])"),
        format!("  may not start uname, whatever allows it   ({name} exec.deny[0])"),
    ] {
        told.must(told.out.lines().any(|own| own == line), &line);
    }
    let heads: Vec<&str> = told.out.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(heads, ["more:", "less:", "other:"], "{told}");
    for (policy, line, code) in [
        (&a, format!("echo x > {outside}/f"), 2),
        (&b, format!("echo x > {outside}/f"), 0),
        (&a, "cat .env && uname".to_string(), 0),
    ] {
        let ran = scene.boxed_sh(&["-p", text(policy)], &line);
        ran.must((ran.code == 0) == (code == 0), &line);
    }
    for line in ["cat .env", "uname"] {
        let ran = scene.boxed_sh(&["-p", text(&b)], line);
        ran.must(ran.code != 0, line);
    }
    let json = scene.agentbox(&["policy", "diff", "--json", text(&b), text(&a)]);
    let json: Value = serde_json::from_str(json.exits(1).out.as_str()).expect("JSON");
    let said =
        |key: &str| json[key].as_array().unwrap().iter().map(|line| line["what"].to_string()).collect::<String>();
    assert!(said("less").contains(&format!("empty directory of its own in place of {outside}")), "{json:#}");
    assert!(said("more").contains("may read or change **/.env") && json["same"] == false, "{json:#}");
}

#[test]
fn bad_input_is_one_error() {
    let scene = Scene::new();
    let bad = scene.file("bad.yaml", "version: 1\nfilesystem: {wrote: [x]}\n");
    for args in [["default", "./nothing.yaml"], ["no-such-profile", "default"], ["default", text(&bad)]] {
        let outcome = scene.agentbox(&[&["policy", "diff"][..], &args].concat());
        outcome.exits(125).must(outcome.out.is_empty() && outcome.err.lines().count() >= 1, "one message");
        outcome.must(!outcome.err.contains("panicked"), "no panic");
    }
    scene.agentbox(&["policy", "diff", "default"]).exits(125);
}
