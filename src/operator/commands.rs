//! The commands: what each asks the relay, and shows.

use super::options::{Change, Command, Form, Options, Patience, Sessions, View};
use super::relay::{Failure, Relay};
use super::{show, tables, views};
use crate::upstream::wish::Lasting;
use serde_json::{json, Value};
use std::io::IsTerminal;
use std::thread;
use std::time::{Duration, Instant};

/// How long a reload may take: the check of the configuration has two minutes.
const RELOAD_PATIENCE: Duration = Duration::from_secs(150);
/// How long the relay may take to begin to end.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How often `wait` looks.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// Carries out a command.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let relay = Relay::new(&options.socket);
    match &options.command {
        Command::Show(view) => {
            let (name, text): (_, fn(&Value) -> String) = match view {
                View::All => ("show", views::overview),
                View::Remotes => ("remotes", views::remotes),
                View::Listeners => ("listeners", views::listeners),
                View::Workers => ("workers", views::workers),
                View::Errors => ("errors", views::errors),
            };
            let answer = relay.ask(&json!({ "do": name }))?;
            print(options.form, &answer, &text(&answer));
            Ok(())
        }
        Command::Sessions(wanted) => {
            let answer = relay.ask(&sessions(wanted))?;
            print(options.form, &answer, &views::sessions(&answer));
            Ok(())
        }
        Command::Kill(ids) => {
            let one = |id: &String| {
                let answer = relay.ask(&json!({ "do": "kill", "session": id }))?;
                print(options.form, &answer, &format!("{id} has ended\n"));
                Ok(())
            };
            // All of them, even if one has ended by itself.
            ids.iter().map(one).fold(Ok(()), Result::and)
        }
        Command::Top { rounds, delay } => top(&relay, *rounds, Duration::from_secs(*delay)),
        Command::Change { remotes, change, lasting } => {
            let each = remotes.iter();
            each.map(|remote| change_one(&relay, remote, *change, *lasting, options.form))
                .fold(Ok(()), Result::and)
        }
        Command::Reload => reload(&relay, options.form),
        Command::Stop(patience) => stop(&relay, *patience, options.form),
        Command::Wait(timeout) => wait(&relay, *timeout, options.form),
    }
}

/// Shows an answer, or the text made of it.
fn print(form: Form, answer: &Value, text: &str) {
    match form {
        Form::Json => show(&format!("{answer}\n")),
        Form::Text => show(text),
    }
}

fn sessions(wanted: &Sessions) -> Value {
    let Sessions { remote, client, sort, top } = wanted;
    let mut request = json!({ "do": "sessions" });
    for (name, value) in [("remote", remote), ("client", client), ("sort", sort)] {
        if let Some(value) = value {
            request[name] = value.as_str().into();
        }
    }
    if let Some(top) = top {
        request["top"] = (*top).into();
    }
    request
}

/// Sessions in the live view.
const TOP_SESSIONS: u64 = 15;

/// A live view, until it was shown so often.
fn top(relay: &Relay, rounds: Option<u64>, delay: Duration) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal();
    let mut before: Option<(Instant, Value)> = None;
    let mut round = 0;
    loop {
        let overview = relay.ask(&json!({ "do": "show" }))?;
        let wanted = Sessions {
            sort: Some("bytes".to_owned()),
            top: Some(TOP_SESSIONS),
            ..Sessions::default()
        };
        let busy = relay.ask(&sessions(&wanted))?;
        let now = Instant::now();
        let span = before.as_ref().map(|(then, _)| now.duration_since(*then).as_secs_f64());
        let former = before.as_ref().map(|(_, overview)| overview).zip(span);
        // Clears the screen, from its upper left corner on.
        let clear = if terminal { "\x1b[H\x1b[2J" } else { "" };
        let text = views::top(&overview, former);
        show(&format!("{clear}{text}\n{}", views::sessions(&busy)));
        before = Some((now, overview));
        round += 1;
        if rounds.is_some_and(|rounds| round >= rounds) {
            return Ok(());
        }
        thread::sleep(delay);
    }
}

/// Changes the remotes that a word stands for.
fn change_one(
    relay: &Relay,
    remote: &str,
    change: Change,
    lasting: Lasting,
    form: Form,
) -> Result<(), Failure> {
    let mut request = match change {
        Change::Drain => json!({ "do": "drain" }),
        Change::Disable => json!({ "do": "disable" }),
        Change::Enable => json!({ "do": "enable" }),
        Change::Weight(weight) => json!({ "do": "weight", "weight": weight }),
    };
    request["remote"] = remote.into();
    if lasting == Lasting::UntilReload {
        request["until-reload"] = true.into();
    }
    let answer = relay.ask(&request)?;
    let does = match change {
        Change::Drain => "drains".to_owned(),
        Change::Disable => "is disabled".to_owned(),
        Change::Enable => "is enabled".to_owned(),
        Change::Weight(Some(weight)) => format!("has weight {weight}"),
        Change::Weight(None) => "has its configured weight".to_owned(),
    };
    let until = match lasting {
        Lasting::Always => "",
        Lasting::UntilReload => " until the next reload",
    };
    let names = tables::each(&answer["remotes"]).iter().map(tables::words);
    let text: String =
        names.map(|name| format!("{} {does}{until}\n", tables::plain(&name))).collect();
    print(form, &answer, &text);
    Ok(())
}

fn sessions_of(count: u64) -> String {
    tables::count(count, "session")
}

fn reload(relay: &Relay, form: Form) -> Result<(), Failure> {
    let answer = relay.ask_for(&json!({ "do": "reload" }), RELOAD_PATIENCE, |note| {
        match (form, note["warning"].as_str()) {
            (Form::Text, Some(text)) => super::complain(text),
            _ => show(&format!("{note}\n")),
        }
    })?;
    print(form, &answer, "the new configuration is in service\n");
    Ok(())
}

/// Ends the service.
fn stop(relay: &Relay, patience: Patience, form: Form) -> Result<(), Failure> {
    let (answer, more) = relay.follow(&json!({ "do": "stop" }), STOP_PATIENCE, |_| {})?;
    let left =
        |answer: &Value| format!("{} left", sessions_of(tables::number(&answer["sessions"])));
    let text = match answer["drains"].as_bool() {
        Some(true) => format!("the service ends with its last session; {}\n", left(&answer)),
        _ => "the service ends\n".to_owned(),
    };
    print(form, &answer, &text);
    if patience == Patience::UntilDone {
        more.end(|note| print(form, note, &format!("{}\n", left(note))));
        if form == Form::Text {
            show("the service has ended\n");
        }
    }
    Ok(())
}

/// Waits until the workers of former configurations are gone.
fn wait(relay: &Relay, timeout: Option<u64>, form: Form) -> Result<(), Failure> {
    let end = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut before = None;
    loop {
        let answer = relay.ask(&json!({ "do": "former" }))?;
        let [workers, sessions] = ["workers", "sessions"].map(|name| tables::number(&answer[name]));
        if workers == 0 {
            print(form, &answer, "no former workers are left\n");
            return Ok(());
        }
        let left =
            format!("{} with {}", tables::count(workers, "former worker"), sessions_of(sessions));
        if before.replace((workers, sessions)) != Some((workers, sessions)) {
            print(form, &answer, &format!("{left}\n"));
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(Failure::TimeIsOver(format!("still there: {left}")));
        }
        thread::sleep(LOOK_PAUSE);
    }
}
