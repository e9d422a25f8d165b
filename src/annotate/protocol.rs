//! One line of what a program says, and the line it is answered with. Pure: text in, values out.
//!
//! Each field is taken by its name and checked there, so that what is refused is named; what nobody has asked for is
//! refused, too.

use serde_json::{Map, Value, json};

use super::{Claim, Said};

/// For whom a process speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Itself.
    Oneself,
    /// The process that started it.
    Parent,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// For whom it is said.
    pub speaks_for: For,
    /// What is said.
    pub said: Said,
}

/// How deep lists and objects may lie in each other.
const DEEPEST: usize = 32;
/// The longest name of a tool or an action, in bytes.
const LONGEST_NAME: usize = 256;
/// How much of an unknown field's name an answer repeats, in characters.
const REPEATED: usize = 40;

/// Takes a line apart, or says what is wrong with it.
pub fn parse(line: &[u8]) -> Result<Request, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("no UTF-8 at byte {}", error.valid_up_to()))?;
    if depth(line) > DEEPEST {
        return Err(format!("nested deeper than {DEEPEST}"));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(map) = value else { return Err("no JSON object".into()) };
    let mut fields = Fields(map);
    if fields.0.remove("v") != Some(json!(1)) {
        return Err("`v` must be 1".into());
    }
    let kind = fields.text("type")?.unwrap_or_default();
    let speaks_for = fields.speaks_for()?;
    let said = match kind.as_str() {
        "begin" => Said::Begin(fields.claim()?),
        "note" => Said::Note(fields.claim()?),
        "end" => Said::End { action: fields.name("action")?, outcome: fields.text("outcome")? },
        _ => return Err("`type` must be \"begin\", \"end\" or \"note\"".into()),
    };
    fields.nothing_left(&kind)?;
    match &said {
        Said::Begin(claim) if *claim == Claim { parent: claim.parent.clone(), ..Claim::default() } => {
            Err("nothing is said of what begins: give a `tool`, `params`, a `reason`, a `plan` or a `note`".into())
        }
        Said::Note(claim) if claim.note.is_none() => Err("`note` is missing".into()),
        _ => Ok(Request { speaks_for, said }),
    }
}

/// What was not taken yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn claim(&mut self) -> Result<Claim, String> {
        Ok(Claim {
            tool: self.name("tool")?,
            params: self.params()?,
            reason: self.text("reason")?,
            plan: self.text("plan")?,
            note: self.text("note")?,
            parent: self.name("parent")?,
            outcome: None,
        })
    }

    fn speaks_for(&mut self) -> Result<For, String> {
        match self.text("for")?.as_deref() {
            None | Some("self") => Ok(For::Oneself),
            Some("parent") => Ok(For::Parent),
            Some(_) => Err("`for` must be \"self\" or \"parent\"".into()),
        }
    }

    /// A field that holds text; one that is null is none.
    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.contains('\0') => Err(holds_zero(name)),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{name}` must be a string")),
        }
    }

    fn name(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.text(name)? {
            Some(text) if text.is_empty() => Err(format!("`{name}` is empty")),
            Some(text) if text.len() > LONGEST_NAME => Err(format!("`{name}` is longer than {LONGEST_NAME} bytes")),
            text => Ok(text),
        }
    }

    fn params(&mut self) -> Result<Option<Value>, String> {
        let params = self.0.remove("params").filter(|params| !params.is_null());
        if params.as_ref().is_some_and(has_zero) { Err(holds_zero("params")) } else { Ok(params) }
    }

    fn nothing_left(&self, kind: &str) -> Result<(), String> {
        let Some(name) = self.0.keys().next() else { return Ok(()) };
        let repeated: String = name.chars().take(REPEATED).flat_map(char::escape_default).collect();
        let known = match kind {
            "end" => "v, type, for, action and outcome",
            _ => "v, type, for, tool, params, reason, plan, note and parent",
        };
        Err(format!("`{repeated}` is no field of \"{kind}\": it has {known}"))
    }
}

fn holds_zero(name: &str) -> String {
    format!("`{name}` holds a NUL")
}

fn has_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_zero),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_zero(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// How deep lists and objects lie in each other, before anything is made of them.
fn depth(line: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The line that answers: with the action's id, or with what is wrong.
pub fn answer(heard: &Result<String, String>) -> Vec<u8> {
    let answer = match heard {
        Ok(action) => json!({ "ok": true, "action": action }),
        Err(error) => json!({ "ok": false, "error": error }),
    };
    format!("{answer}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Said {
        parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}")).said
    }

    fn refusal(line: impl AsRef<[u8]>) -> String {
        match parse(line.as_ref()) {
            Err(error) => error,
            Ok(request) => panic!("{request:?}"),
        }
    }

    #[test]
    fn what_is_said_is_taken_field_by_field() {
        let claim = Claim {
            tool: Some("edit".into()),
            params: Some(json!({ "file": "a", "n": [1, null] })),
            reason: Some("\u{1b}[31m \"why\"".into()),
            plan: Some("step 2".into()),
            note: Some("n".into()),
            parent: Some("a3".into()),
            outcome: None,
        };
        let fields = concat!(
            r#""tool":"edit","params":{"file":"a","n":[1,null]},"reason":"\u001b[31m \"why\"","#,
            r#""plan":"step 2","note":"n","parent":"a3""#
        );
        assert_eq!(said(&format!(r#"{{"v":1,"type":"begin",{fields}}}"#)), Said::Begin(claim.clone()));
        assert_eq!(said(&format!(r#"{{"v":1,"type":"note","for":"self",{fields}}}"#)), Said::Note(claim));
        let end = said(r#"{"v":1,"type":"end","action":"a7","outcome":"done"}"#);
        assert_eq!(end, Said::End { action: Some("a7".into()), outcome: Some("done".into()) });
        assert_eq!(said(r#"{"v":1,"type":"end","action":null}"#), Said::End { action: None, outcome: None });
        let parent = parse(br#"{"v":1,"type":"note","for":"parent","note":"x"}"#).unwrap();
        assert_eq!(parent.speaks_for, For::Parent);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("", "no JSON: EOF"),
            ("hello", "no JSON: expected"),
            ("[1]", "no JSON object"),
            (r#"{"v":1,"type":"end"} x"#, "no JSON: trailing characters"),
            (r#"{"type":"end"}"#, "`v` must be 1"),
            (r#"{"v":2,"type":"end"}"#, "`v` must be 1"),
            (r#"{"v":"1","type":"end"}"#, "`v` must be 1"),
            (r#"{"v":1}"#, "`type` must be"),
            (r#"{"v":1,"type":"start"}"#, "`type` must be"),
            (r#"{"v":1,"type":7}"#, "`type` must be a string"),
            (r#"{"v":1,"type":"end","for":"init"}"#, "`for` must be"),
            (r#"{"v":1,"type":"end","for":1}"#, "`for` must be a string"),
            (r#"{"v":1,"type":"end","action":7}"#, "`action` must be a string"),
            (r#"{"v":1,"type":"end","action":""}"#, "`action` is empty"),
            (r#"{"v":1,"type":"end","tool":"x"}"#, "`tool` is no field of \"end\""),
            (r#"{"v":1,"type":"begin"}"#, "nothing is said of what begins"),
            (r#"{"v":1,"type":"begin","parent":"a1"}"#, "nothing is said of what begins"),
            (r#"{"v":1,"type":"begin","tool":["x"]}"#, "`tool` must be a string"),
            (r#"{"v":1,"type":"begin","tool":"x","reason":{}}"#, "`reason` must be a string"),
            (r#"{"v":1,"type":"begin","tool":"x","pid":1}"#, "`pid` is no field of \"begin\""),
            (r#"{"v":1,"type":"begin","tool":"x\u0000y"}"#, "`tool` holds a NUL"),
            (r#"{"v":1,"type":"begin","params":{"a":["x\u0000"]}}"#, "`params` holds a NUL"),
            (r#"{"v":1,"type":"begin","params":{"a\u0000":1}}"#, "`params` holds a NUL"),
            (r#"{"v":1,"type":"note"}"#, "`note` is missing"),
            (r#"{"v":1,"type":"note","note":1}"#, "`note` must be a string"),
            (r#"{"v":1,"type":"begin","params":1e999}"#, "no JSON: number out of range"),
        ] {
            let error = refusal(line);
            assert!(error.starts_with(named), "{line}: {error}");
        }
        assert_eq!(refusal(b"{\"v\":1,\xff}"), "no UTF-8 at byte 7");
        assert!(refusal(b"{\"v\":1,\"type\":\"note\",\"note\":\"a\0b\"}").contains("control character"));
        let long = format!(r#"{{"v":1,"type":"begin","tool":"{}"}}"#, "x".repeat(257));
        assert_eq!(refusal(long), "`tool` is longer than 256 bytes");
        let long = refusal(format!(r#"{{"v":1,"type":"end","\u001b{}":1}}"#, "x".repeat(5000)));
        assert!(long.starts_with("`\\u{1b}xxx") && long.len() < 200, "{long}");
    }

    #[test]
    fn nesting_ends_at_a_depth() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            format!(r#"{{"v":1,"type":"begin","reason":"[[[\"[[","params":{open}{close}}}"#)
        };
        assert!(matches!(said(&nested(32)), Said::Begin(_)));
        assert_eq!(refusal(nested(33)), "nested deeper than 32");
        // Before anything recurses.
        assert_eq!(refusal("[".repeat(60_000)), "nested deeper than 32");
    }

    #[test]
    fn an_answer_is_one_line_whatever_is_in_it() {
        assert_eq!(answer(&Ok("a7".into())), b"{\"action\":\"a7\",\"ok\":true}\n");
        assert_eq!(answer(&Err("a\nb".into())), b"{\"error\":\"a\\nb\",\"ok\":false}\n");
    }
}
