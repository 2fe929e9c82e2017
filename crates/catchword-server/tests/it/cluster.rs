//! A PostgreSQL cluster of the tests' own, on a free port, gone when they end.
//!
//! The programs are looked for on PATH and in the folders where Debian puts them. Without them the tests
//! that need a cluster say so and do nothing, unless `CATCHWORD_REQUIRE_POSTGRES=1` says that they
//! must run. PostgreSQL refuses to work as root, so root lends the cluster to another user.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// A running cluster.
pub(crate) struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    pub(crate) port: u16,
    /// Ends the server and removes its folder when this process ends, whichever way: its input
    /// closes.
    keeper: Option<Child>,
}

/// Returns the cluster that all tests share; none where PostgreSQL is not installed.
pub(crate) fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(Cluster::start).as_ref()
}

impl Cluster {
    /// Starts a cluster of its own; none where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with these files in the folder of its data.
    pub(crate) fn start_with(files: &[(&str, &str)]) -> Option<Self> {
        let Some(programs) = programs() else {
            let required = std::env::var("CATCHWORD_REQUIRE_POSTGRES").is_ok_and(|it| it == "1");
            assert!(!required, "PostgreSQL is required, and initdb is nowhere");
            eprintln!("LEFT OUT: tests on PostgreSQL, since initdb is nowhere");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("catchword-pg-").tempdir().unwrap().keep();
        let user = other_user(&folder);
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let mut cluster = Self { folder, programs, user, port: 0, keeper: None };
        let data = cluster.data();
        let mut initdb = cluster.command("initdb");
        initdb.args(["--username=keeper", "--auth=trust", "--encoding=UTF8", "--no-locale", "-D"]);
        let made = initdb.arg(&data).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        for (name, text) in files {
            let file = data.join(name);
            fs::write(&file, text).unwrap();
            // PostgreSQL takes no key that others may read.
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((uid, gid)) = user {
                chown(&file, Some(uid), Some(gid)).unwrap();
            }
        }
        cluster.run();
        Some(cluster)
    }

    /// Starts the server on a free port, and waits until it answers.
    pub(crate) fn run(&mut self) {
        if self.port == 0 {
            self.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        }
        for _ in 0..100 {
            self.spawn();
            if self.answers() {
                return;
            }
            // A process that was killed may hold the shared memory for a moment longer.
            self.let_go();
        }
        panic!("the shared memory is still held: {}", self.log());
    }

    fn spawn(&mut self) {
        let script = "\"$@\" & keep=$(cat); kill -QUIT $! 2>/dev/null; wait; \
                      [ -n \"$keep\" ] || rm -rf \"$PWD\"";
        let mut keeper = Command::new("sh");
        keeper.args(["-c", script, "sh"]).arg(self.programs.join("postgres"));
        keeper.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for setting in
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=120"]
        {
            keeper.args(["-c", setting]);
        }
        self.lend(&mut keeper);
        let log = fs::File::create(self.folder.join("log")).unwrap();
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        self.keeper = Some(keeper.spawn().unwrap());
    }

    /// Waits until the server answers, or says that it cannot yet.
    fn answers(&self) -> bool {
        for _ in 0..600 {
            let mut ready = self.command("pg_isready");
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if ready.status().unwrap().success() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
            if self.log().contains("pre-existing shared memory block") {
                return false;
            }
        }
        panic!("no answer: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Ends what keeps the server, and leaves its folder.
    fn let_go(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.stdin.take().unwrap().write_all(b"keep").unwrap();
            keeper.wait().unwrap();
        }
    }

    /// Kills the server and everything that works for it, as a power cut would.
    pub(crate) fn kill(&mut self) {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let main = text.lines().next().unwrap().to_owned();
        // It makes no further processes meanwhile.
        assert!(Command::new("kill").args(["-STOP", &main]).status().unwrap().success());
        let children = Command::new("pgrep").args(["-P", &main]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let all = std::iter::once(main.as_str()).chain(children.lines());
        let _ended = Command::new("kill").arg("-9").args(all).status().unwrap();
        self.let_go();
    }

    /// Makes a database, and returns how to reach it.
    pub(crate) fn database(&self, name: &str) -> String {
        let sql = format!("CREATE DATABASE {name}");
        let mut psql = self.command("psql");
        psql.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "keeper",
            "-d",
            "postgres",
        ]);
        let made = psql.args(["-q", "-c", &sql]).output().unwrap();
        assert!(made.status.success(), "psql: {}", String::from_utf8_lossy(&made.stderr));
        self.url(name)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("postgres://keeper@127.0.0.1:{}/{name}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Returns how to run one of PostgreSQL's programs, as the user who has the cluster.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        self.lend(&mut command);
        command
    }

    fn lend(&self, command: &mut Command) {
        command.current_dir(&self.folder);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid).env_remove("HOME");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            drop(keeper.wait());
        }
    }
}

fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    debian.sort();
    folders.extend(debian.into_iter().rev());
    // A link to initdb alone leads to the others.
    let found = folders.into_iter().find_map(|folder| fs::canonicalize(folder.join("initdb")).ok());
    found.and_then(|initdb| initdb.parent().map(Path::to_owned))
}

/// Returns another user, if this one is root: postgres where there is one, else nobody.
fn other_user(folder: &Path) -> Option<(u32, u32)> {
    if fs::metadata(folder).unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let named = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(named("postgres").or_else(|| named("nobody")).expect("a user who is not root"))
}
