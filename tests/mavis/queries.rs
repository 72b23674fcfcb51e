//! Modules, their queries, and the C project's modules.

use super::*;

/// Runs the driver over `mavis module = …` lines, with the modules built here.
fn drive(modules: &str, options: &[&str], queries: &[String]) -> Outcome {
    drive_in(built(), modules, options, queries)
}

/// The same with modules from another directory.
fn drive_in(modules_in: &Path, modules: &str, options: &[&str], queries: &[String]) -> Outcome {
    run("driver", |directory, command| {
        let config = directory.join("driver.cfg");
        let modules = modules.replace("$WORK", &directory.display().to_string());
        let text = format!("id = test {{\nmavis path = {}\n{modules}\n}}\n", modules_in.display());
        fs::write(&config, text).expect("a configuration can be written");
        command.args(options).arg(config).arg("test").args(queries);
    })
}

/// A query about a host for each user.
fn queries(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| format!("{HOST}={user}")).collect()
}

#[test]
fn later_answers_reach_the_program() {
    for way in ["delay = 5", "delay = 1 buffer = yes"] {
        let modules = format!(
            "mavis module = echo {{ set REALM = here }}\n\
             mavis module slow = later {{ {way} user joe = ACK user bad = NAK }}"
        );
        let outcome = drive(&modules, &[], &queries(&["joe", "bad", "other"]));
        outcome.expect_success("driver");
        outcome.expect_lines(&["init 0", "send 1 1 none", "send 2 1 none", "send 3 1 none"]);
        outcome.expect_lines(&[
            "recv 1 0",
            "    USER = joe",
            "    RESULT = ACK",
            "    REALM = here",
        ]);
        outcome.expect_lines(&["recv 2 0", "    RESULT = NAK", "    IDENTITY_SOURCE = slow"]);
        outcome.expect_lines(&["recv 3 0", "    RESULT = NFD"]);
        outcome.expect_lines(&["pending 0", "dropped"]);
    }
}

#[test]
fn a_cancelled_query_is_not_answered() {
    let queries = [format!("!{HOST}=joe"), format!("{HOST}=kim")];
    let outcome = drive("mavis module = later { delay = 20 }", &[], &queries);
    outcome.expect_success("driver");
    outcome.expect_lines(&["send 1 1 none", "cancel 1 0", "recv 2 0", "pending 0", "dropped"]);
    assert!(!outcome.stdout.contains("recv 1"), "{}", outcome.stdout);
}

#[test]
fn without_an_event_loop_answers_come_at_once() {
    let outcome = drive("mavis module = later { delay = 2 }", &["-s"], &queries(&["joe"]));
    outcome.expect_success("driver");
    outcome.expect_lines(&["send 1 0", "    RESULT = ACK", "pending 0", "dropped"]);
}

/// The result of a query whose module misbehaves; the next query must be answered normally.
#[test]
fn misbehaviour_stays_with_its_query() {
    let cases: &[(&str, &[&str])] = &[
        ("silent", &["send 1 1 none", "send 2 0", "pending 1", "dropped"]),
        (
            "twice",
            &[
                "send 1 1 none",
                "send 2 0",
                "recv 1 0",
                "    RESULT = ACK",
                "recv 1 2 none",
                "pending 0",
            ],
        ),
        ("early", &["recv 1 0", "    RESULT = ACK", "send 1 1 none", "send 2 0", "pending 0"]),
        ("torn", &["send 1 1", "    USER = odd", "send 2 0", "pending 1", "dropped"]),
        ("unknown", &["send 1 77", "    RESULT = ACK", "send 2 0", "pending 0"]),
        ("negative", &["send 1 -1", "send 2 0", "pending 0"]),
        ("garbage", &["send 1 0", "    RESULT = MAYBE", "    TACTYPE = ", "send 2 0", "pending 0"]),
        ("huge", &["send 1 0", "    RESULT = ACK", "send 2 0", "pending 0"]),
        ("clear", &["send 1 0", "    RESULT = NFD", "send 2 0", "pending 0"]),
        ("steal", &["send 1 2 none", "send 2 0", "pending 0"]),
        (
            "print",
            &["this goes to stdout", "send 1 0", "    RESULT = ACK", "send 2 0", "pending 0"],
        ),
        ("leak", &["send 1 0", "    RESULT = ACK", "send 2 0", "pending 0", "dropped"]),
    ];
    for (how, lines) in cases {
        let modules = format!("mavis module = misbehave {{ mode = {how} user odd }}");
        // Who expects no answer has to end the waiting.
        let options: &[&str] = if lines.contains(&"pending 1") { &["-w", "300"] } else { &[] };
        let outcome = drive(&modules, options, &queries(&["odd", "even"]));
        outcome.expect_success(how);
        outcome.expect_lines(lines);
        outcome.expect_lines(&["send 2 0", "    USER = even", "    RESULT = NFD"]);
    }
    let deaths = [("crash", Some(11), None), ("abort", Some(6), None), ("exit", None, Some(3))];
    for (how, signal, code) in deaths {
        let modules = format!("mavis module = misbehave {{ mode = {how} user odd }}");
        let outcome = drive(&modules, &[], &queries(&["even", "odd"]));
        assert_eq!((outcome.status.signal(), outcome.status.code()), (signal, code), "{how}");
        outcome.expect_lines(&["send 1 0", "    RESULT = NFD"]);
    }
}

/// A module of the C project that asks a script, between two modules of ours. The script also
/// prints lines that are no attributes; they must not be taken for TYPE.
#[test]
fn modules_of_the_c_project_are_loaded() {
    let Some(legacy) = env::var_os("TCPRELAY_TEST_LEGACY_MODULES") else {
        left_out("TCPRELAY_TEST_LEGACY_MODULES does not name a directory of C modules");
        return;
    };
    let script = built().join("backend.sh");
    let text = "#!/bin/sh\na= u=\nwhile IFS= read -r l; do case \"$l\" in\n\
                =) case $u in good) r='6 ACK' c=0;; bad) r='6 NAK' c=0;; *) r='17 unknown' c=16;; esac\n\
                printf '%s%s\\nasked about %s\\n=%d\\n' \"$a\" \"$r\" \"$u\" $c; a= u= ;;\n\
                *) case \"$l\" in '4 '*) u=${l#4 };; esac; a=\"$a$l\n\" ;;\nesac; done\n";
    fs::write(&script, text).expect("a script can be written");
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let ours = built().display();
    let modules = format!(
        "mavis path = {ours}\n\
         mavis module = log {{ }}\n\
         mavis module = echo {{ set REALM = here }}\n\
         mavis module = tee {{ path = \"$WORK/tee\" }}\n\
         mavis module script = external {{ exec = {} childs min = 1 childs max = 2 }}",
        script.display()
    );
    let query = |user: &str| format!("{HOST}={user};IPADDR=192.0.2.1");
    let queries = [query("good"), query("bad"), query("other")];
    for options in [&[][..], &["-s"]] {
        let outcome = drive_in(Path::new(&legacy), &modules, options, &queries);
        outcome.expect_success("driver");
        outcome.expect_lines(&["    USER = good", "    RESULT = ACK", "    REALM = here"]);
        outcome.expect_lines(&[
            "    USER = bad",
            "    RESULT = NAK",
            "    IDENTITY_SOURCE = script",
        ]);
        outcome.expect_lines(&["    USER = other", "    RESULT = NFD"]);
        outcome.expect_lines(&["pending 0", "dropped"]);
        for line in ["ACK: good [192.0.2.1]", "NAK: bad [192.0.2.1]", "NFD: other [192.0.2.1]"] {
            let line = format!("[syslog 70] TACPLUS {line}");
            assert!(outcome.stderr.contains(&line), "{line}: {}", outcome.stderr);
        }
    }
}
