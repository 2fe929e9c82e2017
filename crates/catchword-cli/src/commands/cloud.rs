//! `catchword cloud`: the library in an account, too.

use std::io::{IsTerminal as _, Read as _};

use catchword::net::cloud::{
    AddressError, Cloud, CloudError, CloudReport, Credentials, ReachError, ServerAddress,
    SignInError, roots_of_pem,
};
use console::Term;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::args::{CloudArgs, CloudCommand, Command, LoginArgs};
use crate::commands::status::Lines;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::network::Online;
use crate::output::{count, plain};

/// The password, where nobody is asked.
const PASSWORD_VARIABLE: &str = "CATCHWORD_PASSWORD";
/// Longest password that is read, in bytes: more than any server takes.
const PASSWORD_BYTES_MAX: u64 = 4 << 10;

/// What was exchanged with the account.
#[derive(Debug, Default, Serialize)]
struct Exchanged {
    pushed: u64,
    pulled: u64,
    rebased: u64,
    refused: u64,
    outbox: u64,
}

impl From<CloudReport> for Exchanged {
    fn from(report: CloudReport) -> Self {
        let CloudReport { pushed, pulled, rebased, refused, outbox, .. } = report;
        Self { pushed, pulled, rebased, refused, outbox }
    }
}

/// Does something with the account.
pub(crate) fn run(args: &CloudArgs, context: &Context) -> Result<(), Failure> {
    let online = Online::of(context)?;
    match &args.command {
        CloudCommand::Signup(login) => enter(login, true, context, &online),
        CloudCommand::Login(login) => enter(login, false, context, &online),
        CloudCommand::Logout => leave(context, &online),
        CloudCommand::Sync => sync(context, &online, &[]),
        CloudCommand::Status => status(context, &online),
    }
}

/// Returns the password of a command that needs one.
pub(crate) fn password_of(command: &Command) -> Result<Option<Zeroizing<String>>, Failure> {
    let Command::Cloud(CloudArgs {
        command: CloudCommand::Signup(login) | CloudCommand::Login(login),
    }) = command
    else {
        return Ok(None);
    };
    let twice = matches!(command, Command::Cloud(CloudArgs { command: CloudCommand::Signup(_) }));
    password(login, twice).map(Some)
}

fn enter(login: &LoginArgs, new: bool, context: &Context, online: &Online) -> Result<(), Failure> {
    let server = ServerAddress::parse(&login.url, login.plain_http)?;
    // A daemon is given it in the place of standard input.
    let password = match &context.daemon {
        Some(_) => first_line(&mut context.output.input())?,
        None => password(login, new)?,
    };
    let mut credentials = Credentials::new(server, login.user.as_str(), password.as_str());
    if let Some(file) = &login.ca {
        let path = context.path(file);
        let text = std::fs::read(&path).map_err(|error| Failure::file("read", &path, error))?;
        let roots = roots_of_pem(&text).ok_or_else(|| {
            let message = format!("{} holds no certificate", file.display());
            Failure::message(Exit::Usage, message, "give a PEM file, as the server's owner has it")
        })?;
        credentials = credentials.with_roots(roots);
    }
    let entered = if new {
        online.run(online.cloud.sign_up(&credentials))?
    } else {
        online.run(online.cloud.sign_in(&credentials))?
    };
    let told = format!("signed in to {} as {}", plain(&entered.url), plain(&entered.user));
    sync(context, online, &[told])
}

fn leave(context: &Context, online: &Online) -> Result<(), Failure> {
    let told = online.run(online.cloud.sign_out())?;
    let exchanged = Exchanged { outbox: online.cloud.outbox()?, ..Exchanged::default() };
    context.output.print(&exchanged, |page| {
        page.line("signed out; all books stay, here and there");
        if !told {
            page.line(
                "the server could not be told: it lists this device until it is removed there",
            );
        }
    })
}

fn sync(context: &Context, online: &Online, before: &[String]) -> Result<(), Failure> {
    let exchanged = Exchanged::from(online.run(online.cloud.sync())?);
    context.output.print(&exchanged, |page| {
        for line in before {
            page.line(line);
        }
        page.line(format_args!(
            "sent {}, received {}",
            count(exchanged.pushed, "change"),
            count(exchanged.pulled, "change"),
        ));
        if 0 < exchanged.refused {
            let refused = count(exchanged.refused, "position or book");
            page.line(format_args!("{refused} refused: `catchword cloud status` says what"));
        }
        if 0 < exchanged.outbox {
            page.line(format_args!("{} wait", count(exchanged.outbox, "change")));
        }
    })
}

fn status(context: &Context, online: &Online) -> Result<(), Failure> {
    let cloud: &Cloud = &online.cloud;
    if cloud.account()?.is_none() {
        return Err(CloudError::NotSignedIn.into());
    }
    if context.daemon.is_none() {
        // What it finds is told below.
        let _told_as_status = online.run(cloud.look());
    }
    let lines = Lines::of(cloud.status(None)?);
    let exchanged = Exchanged { outbox: cloud.outbox()?, ..Exchanged::default() };
    context.output.print(&exchanged, |page| lines.write(page))
}

/// Finds the password: on standard input, in the environment, or by asking, twice if it is a new one.
fn password(login: &LoginArgs, twice: bool) -> Result<Zeroizing<String>, Failure> {
    if login.password_stdin {
        return first_line(&mut std::io::stdin().lock());
    }
    if let Some(value) = std::env::var_os(PASSWORD_VARIABLE) {
        let value = value.into_string().map_err(|_| {
            Failure::message(Exit::Usage, format_args!("{PASSWORD_VARIABLE} is not UTF-8"), "")
        })?;
        return Ok(Zeroizing::new(value));
    }
    let terminal = Term::stderr();
    if !std::io::stdin().is_terminal() || !terminal.is_term() {
        return Err(Failure::message(
            Exit::Usage,
            "there is nobody to ask for the password",
            "give it with --password-stdin, or in CATCHWORD_PASSWORD",
        ));
    }
    let ask = |question: &str| -> Result<Zeroizing<String>, Failure> {
        terminal.write_str(question)?;
        Ok(Zeroizing::new(terminal.read_secure_line()?))
    };
    let password = ask("password: ")?;
    if twice && *ask("once more: ")? != *password {
        return Err(Failure::message(Exit::Usage, "the two passwords differ", "try again"));
    }
    Ok(password)
}

fn first_line(input: &mut dyn std::io::Read) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    input
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::file("read", std::path::Path::new("standard input"), error))?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    Ok(Zeroizing::new(line))
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        let advice = match error {
            AddressError::Readable => "use https://, or --plain-http if that is what you want",
            AddressError::Malformed | AddressError::Surplus | _ => "give --url https://HOST[:PORT]",
        };
        Self::new(Exit::Usage, error, advice)
    }
}

impl From<SignInError> for Failure {
    fn from(error: SignInError) -> Self {
        let (exit, advice) = match &error {
            SignInError::Wrong => (Exit::Refused, "try again, or `catchword cloud signup`"),
            SignInError::NameTaken => {
                (Exit::Refused, "if it is yours: `catchword cloud login`; else take another name")
            }
            SignInError::Closed => (Exit::Refused, "ask who runs the server for an account"),
            SignInError::TooManyDevices => {
                (Exit::Refused, "`catchword cloud logout` on a device that is not used any more")
            }
            SignInError::SlowDown { .. } => (Exit::Refused, "wait some minutes, and try again"),
            SignInError::Unusable => {
                (Exit::Usage, "a password has 8 to 1,024 bytes, a name at most 128")
            }
            SignInError::Server(ReachError::Certificate(_)) => {
                (Exit::Failed, "if you trust who signed it: --ca FILE with that certificate (PEM)")
            }
            SignInError::Server(_) => {
                (Exit::Failed, "see that the address is right and that the server runs")
            }
            SignInError::Keys(_) | SignInError::Library(_) | _ => (Exit::Failed, ""),
        };
        Self::new(exit, error, advice)
    }
}

impl From<CloudError> for Failure {
    fn from(error: CloudError) -> Self {
        let (exit, advice) = match &error {
            CloudError::NotSignedIn => {
                (Exit::NotFound, "`catchword cloud login --url URL --user NAME`, or `cloud signup`")
            }
            CloudError::SignInAgain => {
                (Exit::Refused, "`catchword cloud login` with the same server and name")
            }
            CloudError::Server(ReachError::Certificate(_)) => (
                Exit::Failed,
                "if you trust who signed it: `catchword cloud login` with --ca FILE (PEM)",
            ),
            CloudError::Server(_) | CloudError::Failing(_) => {
                (Exit::Failed, "nothing is lost: it is sent when the server can be reached")
            }
            CloudError::Address(_)
            | CloudError::Keys(_)
            | CloudError::Account(_)
            | CloudError::Library(_)
            | _ => (Exit::Failed, ""),
        };
        Self::new(exit, error, advice)
    }
}
