//! A page in headless Chromium, in a window of any width, light or dark.

use std::path::Path;
use std::process::Command;

use super::{Scene, run, text};

/// The page in a browser's window of that width: what the page measures, and what the browser complained of.
pub fn measured(scene: &Scene, chromium: &Path, page: &Path, width: u32, scheme: u32) -> (String, String) {
    let frame = format!(
        "<!doctype html><iframe id=f src=\"file://{}\" style=\"border:0;width:{width}px;height:900px\"></iframe>\
         <script>onload=()=>{{const d=document.getElementById('f').contentDocument;const e=d.documentElement;\
         document.body.append('measured '+e.clientWidth+' '+e.scrollWidth+' '+\
         getComputedStyle(d.body).backgroundColor)}}\
         </script>",
        text(page)
    );
    let frame = scene.file("frame.html", frame);
    let mut command = Command::new(chromium);
    scene.dress(&mut command);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]);
    command.arg("--allow-file-access-from-files").arg("--disable-dev-shm-usage").arg("--dump-dom");
    command.arg(format!("--blink-settings=preferredColorScheme={scheme}")).arg("--window-size=1400,1000");
    command.arg(format!("--user-data-dir={}", text(&scene.root.join("browser"))));
    command.arg(format!("file://{}", text(&frame)));
    let shown = run(command, b"");
    shown.exits(0);
    let measure = shown.out.split("measured ").last().unwrap_or_default().split('<').next().unwrap_or_default();
    let complaints = shown.err.lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>().join("\n");
    (measure.to_string(), complaints)
}
