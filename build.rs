//! Turns `profiles/*.yaml` into JSON that is embedded in the binary: reading YAML costs about 6 µs a rule at every
//! start, reading this less than a tenth. A mistake in a shipped profile is a build error with file, line and column.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[allow(dead_code, unused_imports)]
#[path = "src/event.rs"]
mod event;
#[allow(dead_code, unused_imports)]
#[path = "src/policy/file.rs"]
mod file;

/// What deeds weigh: no policy, but published beside them.
const TIERS: &str = "tiers.yaml";

fn main() -> Result<(), Box<dyn Error>> {
    for input in ["profiles", "src/policy/file.rs", "src/policy/file/network.rs", "src/event.rs", "src/event"] {
        println!("cargo::rerun-if-changed={input}");
    }
    // A target directory that is shared by two checkouts must not keep the other's paths.
    println!("cargo::rerun-if-env-changed=CARGO_MANIFEST_DIR");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut table = String::from("&[\n");
    for path in profiles()? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let json = out.join(format!("{name}.json"));
        fs::write(&json, compiled(&path)?)?;
        writeln!(table, "(\"{name}\", include_str!({:?}), include_str!({json:?})),", fs::canonicalize(&path)?)?;
    }
    fs::write(out.join("shipped.rs"), table + "]\n")?;
    fs::write(out.join("tiers.json"), tiers()?)?;
    Ok(())
}

fn profiles() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let entries = fs::read_dir("profiles")?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<PathBuf> =
        entries.into_iter().filter(|p| p.extension().is_some_and(|e| e == "yaml") && !p.ends_with(TIERS)).collect();
    paths.sort();
    Ok(paths)
}

fn tiers() -> Result<String, Box<dyn Error>> {
    let text = fs::read_to_string(Path::new("profiles").join(TIERS))?;
    let table: serde_json::Value = serde_yaml::from_str(&text).map_err(|e| e.to_string())?;
    Ok(table.to_string())
}

fn compiled(path: &Path) -> Result<String, Box<dyn Error>> {
    let file = file::PolicyFile::parse(&path.to_string_lossy(), &fs::read(path)?).map_err(|e| e.to_string())?;
    Ok(serde_json::to_string(&file)?)
}
