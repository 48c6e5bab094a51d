//! A small disk for tests, to be filled.

#![allow(unreachable_pub, reason = "for the other tests, and for nobody else")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::servers::Skip;

/// Mounts a file system in memory, tells of it, and stays until its input ends.
const MOUNT_AND_STAY: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted && exec cat"#;

/// A file system in memory, mounted while this lives.
pub struct SmallDisk {
    /// Where the test finds it.
    dir: PathBuf,
    /// The process that keeps it, where only that and what is started by `nsenter` can see it.
    keeper: Option<Child>,
}

impl SmallDisk {
    /// For all to see where this user may do that; else in a world of its own, see [`SmallDisk::within`].
    pub fn mount(dir: &Path, megabytes: u32) -> Result<SmallDisk, Skip> {
        let size = format!("{megabytes}m");
        std::fs::create_dir_all(dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Ok(SmallDisk { dir: dir.to_path_buf(), keeper: None });
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT_AND_STAY, "sh", &size]).arg(dir);
        let started = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut keeper = started.map_err(|error| Skip(format!("no disk can be mounted: unshare: {error}")))?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "mounted\n" {
            let said = keeper.wait_with_output().unwrap().stderr;
            let (said, mounted) = (String::from_utf8_lossy(&said).into_owned(), mounted.map(|output| output.stderr));
            let first = mounted.map_or_else(|error| error.to_string(), |said| String::from_utf8_lossy(&said).into_owned());
            return Err(Skip(format!("no disk can be mounted: {}; nor in a namespace: {}", first.trim(), said.trim())));
        }
        let pid = keeper.id();
        let dir = PathBuf::from(format!("/proc/{pid}/root{}", dir.display()));
        Ok(SmallDisk { dir, keeper: Some(keeper) })
    }

    /// The command that starts a program where the disk is to be seen; none where all see it.
    pub fn within(&self) -> Vec<String> {
        let Some(keeper) = &self.keeper else { return Vec::new() };
        let enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", &keeper.id().to_string()];
        enter.map(str::to_owned).to_vec()
    }

    /// Writes a file until nothing more fits.
    pub fn fill(&self) -> PathBuf {
        let path = self.dir.join("filler");
        let (mut size, mut file) = (1 << 20, std::fs::File::create(&path).unwrap());
        while size > 0 {
            if std::io::Write::write_all(&mut file, &vec![0; size]).is_err() {
                size /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &mut self.keeper {
            // Its end is that of its world, the disk included.
            Some(keeper) => drop(keeper.kill().and_then(|()| keeper.wait())),
            None => drop(Command::new("umount").arg("-l").arg(&self.dir).status()),
        }
    }
}
