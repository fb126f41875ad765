//! Everything that goes wrong. Each fault is begun here, and what ends it is remembered.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use moji_tests::support::processes::{names_in, now};
use moji_tests::support::proxy::{Cut, Direction};
use rustix::process::Signal;

use crate::soak::{Soak, Who};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillClient,
    KillServer,
    StopClient,
    StopServer,
    /// SIGSTOP for a while, then SIGCONT.
    FreezeClient,
    FreezeServer,
    CutAll,
    CutOne,
    /// After some more bytes of results.
    CutUpload,
    /// Half-open: nothing passes, nothing ends.
    Stall,
    Crawl,
    Refuse,
    FillServersDisk,
    FillBuildersDisk,
    /// An SRPM is moved out of WORKING, and back into SOURCE some time later.
    Cancel,
    /// A person deletes an SRPM from SOURCE.
    Withdraw,
    WritePriority,
}

impl Fault {
    pub(crate) const ALL: [Self; 17] = [
        Self::KillClient,
        Self::KillServer,
        Self::StopClient,
        Self::StopServer,
        Self::FreezeClient,
        Self::FreezeServer,
        Self::CutAll,
        Self::CutOne,
        Self::CutUpload,
        Self::Stall,
        Self::Crawl,
        Self::Refuse,
        Self::FillServersDisk,
        Self::FillBuildersDisk,
        Self::Cancel,
        Self::Withdraw,
        Self::WritePriority,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillClient => "kill -9 of a client",
            Self::KillServer => "kill -9 of the server",
            Self::StopClient => "SIGTERM, restart of a client",
            Self::StopServer => "SIGTERM, restart of the server",
            Self::FreezeClient => "SIGSTOP, SIGCONT of a client",
            Self::FreezeServer => "SIGSTOP, SIGCONT of the server",
            Self::CutAll => "all connections cut",
            Self::CutOne => "a connection cut",
            Self::CutUpload => "a connection cut in an upload",
            Self::Stall => "half-open connection",
            Self::Crawl => "slow line",
            Self::Refuse => "connections refused",
            Self::FillServersDisk => "full disk of the server",
            Self::FillBuildersDisk => "full disk of the builders",
            Self::Cancel => "SRPM taken out of WORKING and queued again",
            Self::Withdraw => "SRPM deleted from SOURCE",
            Self::WritePriority => "priority.txt changed",
        }
    }
}

/// What ends a fault.
#[derive(Debug)]
pub(crate) enum Remedy {
    Continue(Who),
    /// Stops what it was finishing.
    SecondTerm(Who),
    LetGo(usize),
    RoomOnServersDisk,
    RoomOnBuildersDisk,
    Queue(PathBuf, String),
}

impl Soak {
    fn a_while(&mut self, from: u64, to: u64) -> Instant {
        now() + Duration::from_millis(from + self.random.below(to - from))
    }

    fn a_client(&mut self) -> Who {
        Who::Client(self.random.below(self.proxies.len() as u64) as usize)
    }

    /// Does it, if it can be done now.
    pub(crate) fn begin(&mut self, fault: Fault) -> bool {
        let client = self.a_client();
        match fault {
            Fault::KillClient => self.kill(client),
            Fault::KillServer => self.kill(Who::Server),
            Fault::StopClient => {
                let at = self.a_while(500, 4000);
                self.terminate(client) && self.remedy(at, Remedy::SecondTerm(client))
            }
            Fault::StopServer => self.terminate(Who::Server),
            Fault::FreezeClient => self.freeze(client),
            Fault::FreezeServer => self.freeze(Who::Server),
            Fault::CutAll => {
                self.proxies.iter().for_each(|proxy| proxy.cut(Cut::Reset));
                true
            }
            Fault::CutOne => {
                let cut = if self.random.below(2) == 0 { Cut::Fin } else { Cut::Reset };
                self.proxy().cut(cut);
                true
            }
            Fault::CutUpload => {
                let bytes = 10_000 + self.random.below(3_000_000);
                self.proxy().cut_after(Direction::Up, bytes);
                true
            }
            Fault::Stall | Fault::Crawl | Fault::Refuse => self.disturb(fault),
            Fault::FillServersDisk => self.fill(Remedy::RoomOnServersDisk),
            Fault::FillBuildersDisk => self.fill(Remedy::RoomOnBuildersDisk),
            Fault::Cancel => self.cancel(),
            Fault::Withdraw => self.withdraw(),
            Fault::WritePriority => {
                let text = format!("good{}*\n# a comment\nbig*\nno such\n", self.random.below(10));
                // On a full disk that fails; people have that too.
                fs::write(self.farm.source("priority.txt"), text).is_ok()
            }
        }
    }

    fn proxy(&mut self) -> &moji_tests::support::proxy::Proxy {
        let at = self.random.below(self.proxies.len() as u64) as usize;
        &self.proxies[at]
    }

    fn remedy(&mut self, at: Instant, remedy: Remedy) -> bool {
        self.remedies.push((at, remedy));
        true
    }

    fn kill(&mut self, who: Who) -> bool {
        self.signal(who, Signal::KILL)
    }

    fn terminate(&mut self, who: Who) -> bool {
        // A stopped process takes no SIGTERM.
        self.thaw(who);
        self.signal(who, Signal::TERM)
    }

    fn freeze(&mut self, who: Who) -> bool {
        let at = self.a_while(500, 4500);
        self.told(who).is_none() && self.signal(who, Signal::STOP) && self.remedy(at, Remedy::Continue(who))
    }

    fn thaw(&mut self, who: Who) {
        self.signal(who, Signal::CONT);
    }

    fn disturb(&mut self, fault: Fault) -> bool {
        let at = self.random.below(self.proxies.len() as u64) as usize;
        let proxy = &self.proxies[at];
        match fault {
            Fault::Stall => proxy.stall(true),
            Fault::Crawl => proxy.limit(Some(100_000)),
            _ => {
                proxy.refuse(true);
                proxy.cut(Cut::Fin);
            }
        }
        let end = self.a_while(1000, 6000);
        self.remedy(end, Remedy::LetGo(at))
    }

    fn fill(&mut self, remedy: Remedy) -> bool {
        let left = self.random.below(2) * self.random.below(2 << 20);
        let end = self.a_while(700, 3000);
        let full = match remedy {
            Remedy::RoomOnServersDisk => &mut self.servers_disk,
            _ => &mut self.builders_disk,
        };
        let Some(disk) = full.as_mut().filter(|disk| disk.full_since.is_none()) else { return false };
        disk.fill(left);
        self.remedy(end, remedy)
    }

    fn cancel(&mut self) -> bool {
        let mut working = names_in(&self.farm.working(""));
        working.retain(|name| name.ends_with(".src.rpm"));
        let Some(name) = self.random.pick(working) else { return false };
        let aside = self.aside.join(&name);
        if fs::rename(self.farm.working(&name), &aside).is_err() {
            return false;
        }
        self.cancelled.insert(name.clone());
        let at = self.a_while(200, 2000);
        self.remedy(at, Remedy::Queue(aside, name))
    }

    fn withdraw(&mut self) -> bool {
        let mut source = names_in(&self.farm.source(""));
        source.retain(|name| name.ends_with(".src.rpm"));
        let Some(name) = self.random.pick(source) else { return false };
        let withdrawn = fs::remove_file(self.farm.source(&name)).is_ok();
        if withdrawn {
            self.withdrawn.insert(name);
        }
        withdrawn
    }

    /// Ends a fault.
    pub(crate) fn end(&mut self, remedy: Remedy) {
        match remedy {
            Remedy::Continue(who) => self.thaw(who),
            Remedy::SecondTerm(who) => {
                if self.told(who) == Some(Signal::TERM) {
                    self.signal(who, Signal::TERM);
                }
            }
            Remedy::LetGo(proxy) => self.proxies[proxy].let_go(),
            Remedy::RoomOnServersDisk => self.servers_disk.as_mut().unwrap().make_room(),
            Remedy::RoomOnBuildersDisk => self.builders_disk.as_mut().unwrap().make_room(),
            Remedy::Queue(from, name) => fs::rename(from, self.farm.source(name)).unwrap(),
        }
    }
}
