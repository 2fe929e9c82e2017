//! What the compiler does not check: the arrows between crates, lengths, leftovers, and documents
//! that name what exists.
//!
//! Each check is a function from texts to complaints. One test applies it to this repository, and
//! another shows that it can complain.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::report;

/// A file of this many lines is split along a noun, unless [`SHRINKING`] still lists it.
const LINES_TARGET: usize = 800;

/// A file is never longer than this.
const LINES_MAX: usize = 1_200;

/// Files that are too long, with the length that they may not exceed. Entries only get smaller.
const SHRINKING: &[(&str, usize)] = &[];

/// The layer of each crate: an arrow goes from a greater number to a smaller one.
const LAYERS: &[(&str, u8)] = &[
    ("catchword-model", 1),
    ("catchword-store", 2),
    ("catchword-proto", 2),
    ("catchword-formats", 2),
    ("catchword", 3),
    ("catchword-server", 3),
    ("catchword-cli", 4),
    ("catchword-ffi", 4),
    ("catchword-sim", 4),
];

/// The server has no use for the engine's parts.
const SERVER_MAY_USE: &[&str] = &["catchword-model", "catchword-proto"];

#[test]
fn crates_depend_on_layers_below_their_own() {
    let manifests = files(|path| path.starts_with("crates/") && path.ends_with("/Cargo.toml"));
    assert!(5 <= manifests.len(), "only {} manifests found", manifests.len());
    assert_none(manifests.iter().flat_map(|(path, text)| wrong_arrows(path, text)));
}

#[test]
fn an_arrow_that_points_up_or_sideways_is_found() {
    let complaints = |path: &str, text: &str| wrong_arrows(path, text).len();
    let manifest = |rest: &str| format!("[package]\n[lints]\nworkspace = true\n{rest}");

    let store = "crates/catchword-store/Cargo.toml";
    assert_eq!(complaints(store, &manifest("[dependencies]\ncatchword-model.workspace = true")), 0);
    for wrong in [
        "[dependencies]\ncatchword-formats.workspace = true",
        "[dependencies]\ncatchword = { path = \"../catchword\" }",
        "[dependencies.catchword-sim]\npath = \"../catchword-sim\"",
        "[target.'cfg(unix)'.dependencies]\nengine = { package = \"catchword\", path = \"x\" }",
        "[dev-dependencies]\ncatchword-sim.workspace = true",
        "[build-dependencies]\n\"catchword-store\" = { workspace = true }",
        "[dependencies]\ncatchword-benches = { path = \"../../benches\" }",
    ] {
        assert_eq!(complaints(store, &manifest(wrong)), 1, "{wrong}");
    }

    let server = "crates/catchword-server/Cargo.toml";
    let tests_only = manifest("[dev-dependencies]\ncatchword-sim.workspace = true");
    assert_eq!(complaints(server, &tests_only), 0);
    assert_eq!(complaints(server, &manifest("[dependencies]\ncatchword-store = \"1\"")), 1);
    assert_eq!(complaints("crates/catchword-util/Cargo.toml", &manifest("")), 1);
    assert_eq!(complaints(store, "[package]\n"), 1, "the lints of the workspace are missing");
}

fn wrong_arrows(path: &str, manifest: &str) -> Vec<String> {
    let name = path.split('/').nth(1).unwrap_or_default();
    let Some(layer) = layer(name) else {
        return vec![format!("{path}: {name} has no layer in style section 2")];
    };
    let mut complaints = Vec::new();
    if !manifest.contains("[lints]\nworkspace = true") {
        complaints.push(format!("{path}: does not take the lints of the workspace"));
    }
    for (table, dependency) in dependencies(manifest) {
        let tests_only = table == "dev-dependencies";
        let below = self::layer(&dependency).is_some_and(|below| below < layer);
        let allowed = if name != "catchword-server" {
            below
        } else if tests_only && dependency == "catchword-sim" {
            true
        } else {
            SERVER_MAY_USE.contains(&dependency.as_str())
        };
        if !allowed {
            complaints.push(format!("{path}: {table}: {name} may not depend on {dependency}"));
        }
    }
    complaints
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(listed, _)| *listed == name).map(|(_, layer)| *layer)
}

/// Returns the crates of this workspace that a manifest names, with the table that names them.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut table = String::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let (parents, last) = header.rsplit_once('.').unwrap_or(("", header));
            last.clone_into(&mut table);
            if parents.ends_with("dependencies") {
                found.push((parents.to_owned(), last.trim_matches('"').to_owned()));
            }
        } else if table.ends_with("dependencies")
            && let Some((key, value)) = line.split_once('=')
        {
            let key = key.trim().trim_end_matches(".workspace").trim_matches('"');
            let renamed =
                value.split_once("package = \"").and_then(|(_, rest)| rest.split_once('"'));
            found.push((table.clone(), renamed.map_or(key, |(name, _)| name).to_owned()));
        }
    }
    found.retain(|(_, name)| name == "catchword" || name.starts_with("catchword-"));
    found
}

#[test]
fn files_are_short_enough_to_read() {
    let sources = files(is_rust);
    assert_none(long_files(&sources, SHRINKING));
    let longest = sources.iter().map(|(path, text)| (text.lines().count(), path)).max();
    report(&format!("{} files, the longest: {longest:?}", sources.len()));
}

#[test]
fn a_file_that_is_too_long_or_a_list_that_is_out_of_date_is_found() {
    let lines = |count: usize| BTreeMap::from([("a.rs".to_owned(), "x\n".repeat(count))]);

    assert_eq!(long_files(&lines(LINES_TARGET), &[]).len(), 0);
    assert_eq!(long_files(&lines(LINES_TARGET + 1), &[]).len(), 1);
    assert_eq!(long_files(&lines(900), &[("a.rs", 900)]).len(), 0);
    assert_eq!(long_files(&lines(901), &[("a.rs", 900)]).len(), 1, "it has grown");
    assert_eq!(long_files(&lines(899), &[("a.rs", 900)]).len(), 1, "the list must shrink with it");
    assert_eq!(long_files(&lines(10), &[("a.rs", 900)]).len(), 1, "it need not be listed");
    assert_eq!(long_files(&lines(10), &[("b.rs", 900)]).len(), 1, "there is no such file");
    assert_eq!(long_files(&lines(LINES_MAX + 1), &[("a.rs", LINES_MAX + 1)]).len(), 1);
}

fn long_files(sources: &BTreeMap<String, String>, listed: &[(&str, usize)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in sources {
        let lines = text.lines().count();
        let limit = listed.iter().find(|(name, _)| name == path).map(|(_, limit)| *limit);
        if LINES_MAX < lines {
            complaints.push(format!("{path}: {lines} lines, never more than {LINES_MAX}"));
        } else if let Some(limit) = limit
            && (lines != limit || lines <= LINES_TARGET)
        {
            complaints.push(format!("{path}: {lines} lines, but SHRINKING says {limit}"));
        } else if limit.is_none() && LINES_TARGET < lines {
            complaints.push(format!("{path}: {lines} lines; split it along a noun"));
        }
    }
    let gone = listed.iter().filter(|(name, _)| !sources.contains_key(*name));
    complaints.extend(gone.map(|(name, _)| format!("{name}: in SHRINKING, but not there")));
    complaints
}

#[test]
fn every_table_is_defined_in_one_file_and_described_in_its_document() {
    let described = [
        ("crates/catchword-store/src/tables.rs", "docs/FORMAT.md"),
        ("crates/catchword-server/src/ledger/tables.rs", "docs/CLOUD.md"),
    ];
    let sources =
        files(|path| path.starts_with("crates/") && path.contains("/src/") && is_rust(path));
    for (path, text) in &sources {
        let elsewhere = described.iter().all(|(tables, _)| path != tables);
        assert!(!elsewhere || table_names(text).is_empty(), "{path}: tables are defined elsewhere");
    }

    for (tables, document) in described {
        let source = &sources[tables];
        assert!(!table_names(source).is_empty(), "no table found in {tables}");
        let texts = files(|path| path == document);
        assert_none(undescribed_tables(source, document, &texts[document]));
    }
}

#[test]
fn a_table_that_the_format_does_not_describe_is_found() {
    let definition = concat!("Table", "Definition::new(");
    let source =
        format!("A = {definition}\"log-1\"); B = Multimap{definition}\n    \"rows-2\",\n);");

    assert_eq!(table_names(&source), ["log-1", "rows-2"]);
    let complaints = undescribed_tables(&source, "docs/FORMAT.md", "`rows-2` and log-1");
    assert_eq!(complaints, ["docs/FORMAT.md: no `log-1`"]);
}

fn table_names(source: &str) -> Vec<&str> {
    source
        .split(concat!("Table", "Definition::new("))
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split_once('"'))
        .map(|(name, _)| name)
        .collect()
}

fn undescribed_tables(source: &str, document: &str, text: &str) -> Vec<String> {
    table_names(source)
        .into_iter()
        .filter(|name| !text.contains(&format!("`{name}`")))
        .map(|name| format!("{document}: no `{name}`"))
        .collect()
}

#[test]
fn code_is_ascii_outside_comments_and_text() {
    let sources = files(is_rust);
    assert_none(sources.iter().flat_map(|(path, text)| foreign_characters(path, text)));
}

#[test]
fn a_foreign_character_in_code_is_found_and_in_comments_and_text_it_is_not() {
    let fine = concat!(
        "// é\n/* é /* é */ é */ let a = \"é \\\" é\"; let b = r#\"é \" é\"#; let c = 'é';\n",
        "let d = b'\\''; let e: &'static str = r\"é\\\"; let f = '\\u{e9}'; let r#type = 1;\n",
    );
    assert_eq!(foreign_characters("a.rs", fine), Vec::<String>::new());

    for wrong in ["let é = 1;", "fn f<'é>() {}", "let a = \"x\"; let é = 'x';", "/* x */ é"] {
        assert_eq!(foreign_characters("a.rs", wrong).len(), 1, "{wrong}");
    }
    assert_eq!(foreign_characters("a.rs", "\n\nlet é = ö;"), ["a.rs:3: é in code"]);
}

fn foreign_characters(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let lines = code.lines().enumerate();
    lines
        .filter_map(|(index, line)| Some((index + 1, line.chars().find(|char| !char.is_ascii())?)))
        .map(|(line, char)| format!("{path}:{line}: {char} in code"))
        .collect()
}

/// Blanks comments, strings and characters out of Rust source; lines stay where they are.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while !rest.is_empty() {
        let length = text_length(rest);
        if length == 0 {
            // A name is taken whole, so that the `r` of `for"` is not the beginning of a raw string.
            let name = rest.find(|char: char| char != '_' && !char.is_alphanumeric());
            let name = name.unwrap_or(rest.len());
            let taken = if 0 < name { name } else { rest.chars().next().map_or(1, char::len_utf8) };
            let (taken, after) = rest.split_at(taken);
            code.push_str(taken);
            rest = after;
        } else {
            let (text, after) = rest.split_at(length);
            code.extend(text.chars().filter(|char| *char == '\n'));
            rest = after;
        }
    }
    code
}

/// Returns how many bytes at the front are a comment, a string or a character; 0 if they are code.
fn text_length(source: &str) -> usize {
    let after = |start: usize, end: &str| {
        let rest = &source[start..];
        rest.find(end).map_or(source.len(), |at| start + at + end.len())
    };
    if source.starts_with("//") {
        return source.find('\n').unwrap_or(source.len());
    }
    if source.starts_with("/*") {
        return block_comment_length(source);
    }
    let unprefixed = source.trim_start_matches(['b', 'c']);
    let prefix = source.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            return after(prefix + 1 + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    if unprefixed.starts_with('"') {
        return prefix + quoted_length(unprefixed, '"');
    }
    if unprefixed.starts_with('\'') {
        let mut chars = unprefixed.chars().skip(1);
        let is_character = chars.next() == Some('\\') || chars.next() == Some('\'');
        return if is_character { prefix + quoted_length(unprefixed, '\'') } else { 0 };
    }
    0
}

fn quoted_length(source: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, char) in source.char_indices().skip(1) {
        if char == quote && !escaped {
            return at + 1;
        }
        escaped = char == '\\' && !escaped;
    }
    source.len()
}

fn block_comment_length(source: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    source.len()
}

#[test]
fn nothing_is_left_over_and_no_path_of_one_machine_is_named() {
    let texts = files(is_text);
    assert!(20 <= texts.len(), "only {} texts found", texts.len());
    assert_none(texts.iter().flat_map(|(path, text)| leftovers(path, text)));
}

#[test]
fn a_leftover_marker_or_a_path_of_one_machine_is_found() {
    for marker in markers() {
        assert_eq!(leftovers("a.md", &format!("x\n // {marker} later")).len(), 1, "{marker}");
    }
    assert_eq!(leftovers("a.md", &format!("see {}x", machine_paths()[0])).len(), 1);
    assert_eq!(leftovers("a.md", "mastodons, framework/rooted"), Vec::<String>::new());
}

/// Put together here, so that this file does not contain them.
fn markers() -> Vec<String> {
    let halves = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X"),
        ("HA", "CK"),
        ("to", "do!"),
        ("unimple", "mented!"),
        ("db", "g!"),
        ("<<<<", "<<<"),
        (">>>>", ">>>"),
    ];
    halves.iter().map(|(first, second)| format!("{first}{second}")).collect()
}

fn machine_paths() -> Vec<String> {
    ["work", "root", "home"].iter().map(|folder| format!("/{folder}/")).collect()
}

fn leftovers(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let found = markers().into_iter().filter(|marker| has_word(line, marker));
        let paths = machine_paths().into_iter().filter(|folder| line.contains(folder));
        complaints.extend(found.chain(paths).map(|it| format!("{path}:{}: {it}", index + 1)));
    }
    complaints
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part =
        |char: Option<char>| char.is_some_and(|char| char == '_' || char.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    })
}

#[test]
fn every_test_file_is_part_of_a_binary() {
    let sources =
        files(|path| path.starts_with("crates/") && path.contains("/tests/") && is_rust(path));
    assert!(
        sources.contains_key("crates/catchword-sim/tests/it/tidy.rs"),
        "this file is not found"
    );
    assert_none(orphans(&sources));
}

#[test]
fn a_test_file_that_nobody_compiles_is_found() {
    let sources = |main: &str, other: &str| {
        BTreeMap::from([
            ("crates/a/tests/it/main.rs".to_owned(), main.to_owned()),
            (other.to_owned(), "mod deep;\n".to_owned()),
        ])
    };
    assert_eq!(orphans(&sources("mod b;\n", "crates/a/tests/it/b.rs")).len(), 0);
    assert_eq!(orphans(&sources("mod b;\n", "crates/a/tests/it/b/mod.rs")).len(), 0);
    assert_eq!(orphans(&sources("mod bc;\n// mod b;\n", "crates/a/tests/it/b.rs")).len(), 1);
    assert_eq!(orphans(&sources("mod b;\n", "crates/a/tests/it/c/b.rs")).len(), 1);
    assert_eq!(orphans(&sources("mod b;\n", "crates/a/tests/b.rs")).len(), 1, "a second binary");

    let mut nested = sources("mod b;\n", "crates/a/tests/it/b.rs");
    nested.insert("crates/a/tests/it/b/deep.rs".to_owned(), String::new());
    assert_eq!(orphans(&nested).len(), 0);
}

/// Folders of `tests/it` that hold data are not Rust and not looked at.
fn orphans(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for path in sources.keys() {
        let Some((package, within)) = path.split_once("/tests/") else { continue };
        let Some(module) = within.strip_prefix("it/").and_then(|rest| rest.strip_suffix(".rs"))
        else {
            complaints.push(format!("{path}: not in tests/it, the one test binary"));
            continue;
        };
        let module = module.strip_suffix("/mod").unwrap_or(module);
        if module == "main" {
            continue;
        }
        let root = format!("{package}/tests/it");
        let (parents, name) = match module.rsplit_once('/') {
            Some((above, name)) => {
                ([format!("{root}/{above}.rs"), format!("{root}/{above}/mod.rs")], name)
            }
            None => ([format!("{root}/main.rs"), String::new()], module),
        };
        let declared = parents.iter().filter_map(|parent| sources.get(parent)).any(|text| {
            text.lines()
                .any(|line| line.trim_end().trim_start_matches("pub ") == format!("mod {name};"))
        });
        if !declared {
            complaints.push(format!("{path}: no module of {}", parents[0]));
        }
    }
    complaints
}

#[test]
fn the_readme_shows_how_and_its_links_lead_somewhere() {
    let files = files(|path| path == "README.md");
    let Some(readme) = files.get("README.md") else {
        return report("no README.md yet");
    };
    let doctests = self::files(|path| path.starts_with("crates/") && is_rust(path));
    let compiled = doctests.values().any(|text| text.contains("README.md\")"));
    assert!(
        compiled,
        "no crate includes README.md as documentation, so nobody compiles its example"
    );
    assert_none(readme_faults(readme, |target| root().join(target).exists()));
}

#[test]
fn a_readme_without_example_or_command_or_with_a_dead_link_is_found() {
    let good = "```rust\nx\n```\n```sh\ncargo run --release -- demo\ncargo test --workspace\n```\n[a](docs/A.md)";
    let there = |target: &str| target == "docs/A.md";

    assert_eq!(readme_faults(good, there), Vec::<String>::new());
    assert_eq!(readme_faults(good, |_| false).len(), 1);
    assert_eq!(readme_faults(&good.replace("```rust", "```"), there).len(), 1);
    assert_eq!(readme_faults(&good.replace("test", "nextest"), there).len(), 1);
    assert_eq!(readme_faults(&format!("{good}\n```"), there).len(), 1, "a block is not closed");
    assert_eq!(readme_faults("", there).len(), 3);
}

fn readme_faults(readme: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    if readme.lines().filter(|line| line.trim_start().starts_with("```")).count() % 2 == 1 {
        complaints.push("README.md: a block is not closed".to_owned());
    }
    for needed in ["```rust", "cargo run --release -- demo", "cargo test --workspace"] {
        if !readme.contains(needed) {
            complaints.push(format!("README.md: no {needed}"));
        }
    }
    let targets = readme.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    for (target, _) in targets {
        let target = target.split('#').next().unwrap_or_default();
        if !target.is_empty() && !target.contains("://") && !exists(target) {
            complaints.push(format!("README.md: {target} does not exist"));
        }
    }
    complaints
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn is_text(path: &str) -> bool {
    let texts = ["rs", "toml", "md", "yml", "yaml", "sh", "json", "txt", "snap"];
    let path = Path::new(path);
    path.extension().is_some_and(|extension| texts.iter().any(|text| extension == *text))
        || path.starts_with(".ci")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the files of this repository whose path is wanted, with their text.
fn files(wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let paths = tracked().unwrap_or_else(|| walked(&root()));
    paths
        .into_iter()
        .filter(|path| wanted(path))
        .filter_map(|path| Some((path.clone(), fs::read_to_string(root().join(path)).ok()?)))
        .collect()
}

/// Returns what git knows or would add, or nothing outside a checkout.
fn tracked() -> Option<Vec<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(arguments).current_dir(root()).output().ok()?;
    let paths = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = paths.split_terminator('\0').map(str::to_owned).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

/// Returns what lies in the folder, as an unpacked archive has no git.
fn walked(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("the repository can be read");
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            if !path.is_dir() {
                let within = path.strip_prefix(root).expect("it was found below");
                found.push(within.to_string_lossy().replace('\\', "/"));
            } else if entry.file_name() != "target" && entry.file_name() != ".git" {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn without_git_the_same_manifests_are_found() {
    let manifests = |paths: Vec<String>| {
        let mut paths: Vec<_> =
            paths.into_iter().filter(|path| path.ends_with("Cargo.toml")).collect();
        paths.sort();
        paths
    };
    if let Some(tracked) = tracked() {
        assert_eq!(manifests(walked(&root())), manifests(tracked));
    }
}

fn assert_none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
