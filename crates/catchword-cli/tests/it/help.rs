//! What `--help` says, completions and manual pages.

use crate::support::{catchword, stderr, stdout};

/// The names under "Commands:" of the help.
fn commands() -> Vec<String> {
    let help = stdout(&catchword(&["-h"]));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    listed.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[test]
fn the_help_of_every_command_is_as_reviewed() {
    let mut all = stdout(&catchword(&["--help"]));
    for command in commands() {
        let help = stdout(&catchword(&[&command, "--help"]));
        all.extend(["\n==== catchword ", &command, " --help\n\n", &help]);
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn every_command_begins_with_what_it_does_without_a_full_stop() {
    assert!(25 <= commands().len());
    for command in commands() {
        let help = stdout(&catchword(&[&command, "--help"]));
        let first = help.lines().next().unwrap_or_default();
        assert!(first.starts_with(char::is_uppercase), "{command}: {first}");
        assert!(!first.ends_with('.'), "{command}: {first}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_says_why_on_standard_error_alone() {
    for line in [&["read", "Emma"][..], &["no-such-command"], &["books", "--json", "--no-such"]] {
        let output = catchword(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        assert_eq!(stdout(&output), "", "{line:?}");
        assert!(stderr(&output).starts_with("catchword: "), "{line:?}: {}", stderr(&output));
    }
}

#[test]
fn completions_know_every_command() {
    let script = stdout(&catchword(&["completions", "bash"]));
    for command in commands() {
        assert!(script.contains(&command), "{command}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&catchword(&["completions", "fish", "--json"]))).unwrap();
    assert_eq!(json["shell"], "fish");
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let output = catchword(&["man", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    for command in commands() {
        let page = folder.path().join(format!("catchword-{command}.1"));
        let page =
            std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{page:?}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
    }
    let page = stdout(&catchword(&["man"]));
    assert!(page.contains("catchword"), "{page}");
}
