//! A block device that we own from below: `qemu-storage-daemon` serves an image as a file, a loop device makes it a disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::tools::{Outcome, PATIENCE, call, failed, text};

/// What lies between the disk and its image.
#[derive(Clone, Debug)]
pub enum Layer {
    /// Writes and flushes are logged, in the order of their completion.
    Logged {
        /// The log.
        log: PathBuf,
    },
    /// The first write that touches a sector fails.
    Failing {
        /// Its number, in units of 512 bytes.
        sector: u64,
    },
}

/// A running disk.
#[derive(Debug)]
pub struct Device {
    daemon: Child,
    served: PathBuf,
    path: PathBuf,
}

impl Device {
    /// Serves `image`; files that the device needs are made in `home`.
    pub fn start(home: &Path, image: &Path, layer: &Layer) -> Outcome<Device> {
        let served = home.join("served");
        fs::write(&served, b"").map_err(failed("making a mount point"))?;
        let len = fs::metadata(image).map_err(failed("stat of the image"))?.len();
        let mut daemon = Command::new("qemu-storage-daemon");
        let file = |name: &str, path: &Path| {
            format!("driver=file,node-name={name},filename={},cache.no-flush=on", text(path))
        };
        daemon.args(["--blockdev", &file("disk", image)]);
        match layer {
            Layer::Logged { log } => {
                fs::write(log, b"").map_err(failed("making the log"))?;
                daemon.args(["--blockdev", &file("log", log)]);
                daemon.args([
                    "--blockdev",
                    "driver=blklogwrites,node-name=top,file=disk,log=log,log-sector-size=512",
                ]);
            }
            Layer::Failing { sector } => {
                let fault = format!(
                    "driver=blkdebug,node-name=top,image=disk,inject-error.0.event=none,\
                     inject-error.0.iotype=write,inject-error.0.sector={sector},\
                     inject-error.0.errno=5,inject-error.0.once=on"
                );
                daemon.args(["--blockdev", &fault]);
            }
        }
        let export = format!(
            "type=fuse,id=export,node-name=top,mountpoint={},writable=on,growable=off",
            text(&served)
        );
        let mut daemon =
            daemon.args(["--export", &export]).spawn().map_err(failed("qemu-storage-daemon"))?;
        let asked = Instant::now();
        while fs::metadata(&served).map_or(0, |metadata| metadata.len()) != len {
            if let Ok(Some(status)) = daemon.try_wait() {
                return Err(format!("qemu-storage-daemon: {status}"));
            }
            if asked.elapsed() > PATIENCE {
                let _ = daemon.kill();
                return Err("qemu-storage-daemon serves nothing".to_owned());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let mut device = Device { daemon, served, path: PathBuf::new() };
        device.path = call("losetup", &["--find", "--show", text(&device.served)])?.into();
        Ok(device)
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = call("losetup", &["--detach", text(&self.path)]);
        }
        let _ = call("umount", &[text(&self.served)]);
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let _ = self.daemon.wait();
    }
}
