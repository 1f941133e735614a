//! Two namespaces with a wire between them: an allocation's, and the rest of the
//! world.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use mesh_cni::{Answer, MESH_MARK};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, geteuid, getpid, gettid, setfsuid};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// How long anything may take that should happen.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long an answer to a datagram may take.
const ANSWER: Duration = Duration::from_secs(1);

/// What the plugin before us said.
pub(crate) const PREVIOUS: &str =
    r#"{"cniVersion":"0.4.0","interfaces":[{"name":"eth0"}],"dns":{}}"#;

/// What the outside answers for, beside its end of the wire.
pub(crate) const VIP: &str = "240.0.0.1";
pub(crate) const VIP6: &str = "fd00:240::1";
pub(crate) const RESOLVER: &str = "9.9.9.9";
pub(crate) const RESOLVER6: &str = "2620:fe::fe";
pub(crate) const EXCLUDED: &str = "203.0.113.7";
pub(crate) const EXCLUDED6: &str = "2001:db8:7::7";
/// Where the allocation is.
pub(crate) const ALLOCATION: &str = "10.99.0.2";
pub(crate) const ALLOCATION6: &str = "fd00:99::2";

type Work = Box<dyn FnOnce() + Send>;

/// A namespace, held by the one thread that is in it.
pub(crate) struct Net {
    pub(crate) path: String,
    work: mpsc::Sender<Work>,
}

impl Net {
    fn new() -> nix::Result<Self> {
        let (work, todo) = mpsc::channel::<Work>();
        let (made, path) = mpsc::channel();
        std::thread::spawn(move || {
            let inside = unshare(CloneFlags::CLONE_NEWNET)
                .map(|()| format!("/proc/{}/task/{}/ns/net", getpid(), gettid()));
            let _ = made.send(inside);
            todo.iter().for_each(|work| work());
        });
        let path = path.recv().expect("the thread answers")?;
        Ok(Self { path, work })
    }

    /// Runs something inside.
    pub(crate) fn run<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let work = move || {
            let _ = done.send(run());
        };
        self.work.send(Box::new(work)).expect("the thread is there");
        result.recv().expect("it did not panic")
    }

    fn output(&self, line: &str) -> io::Result<Output> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.run(move || Command::new(&words[0]).args(&words[1..]).output())
    }

    /// Whether a program does its work inside.
    pub(crate) fn works(&self, line: &str) -> bool {
        self.output(line)
            .is_ok_and(|output| output.status.success())
    }

    /// Runs a program inside, which must succeed: what it printed.
    pub(crate) fn program(&self, line: &str) -> String {
        let output = self.output(line);
        let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A listener, or a datagram socket.
    pub(crate) fn serve(&self, kind: Type, address: &str) -> Socket {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let socket = Socket::new(Domain::for_address(address), kind, None)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_read_timeout(Some(DEADLINE))?;
            socket.bind(&address.into())?;
            if kind == Type::STREAM {
                socket.listen(16)?;
            }
            io::Result::Ok(socket)
        })
        .unwrap()
    }

    /// A socket that is connected, of whoever it is.
    pub(crate) fn connect(&self, kind: Type, who: Who, to: &str) -> Socket {
        let address: SocketAddr = to.parse().unwrap();
        self.run(move || {
            let socket = who.socket(Domain::for_address(address), kind)?;
            socket.set_read_timeout(Some(DEADLINE))?;
            socket.connect_timeout(&address.into(), DEADLINE)?;
            io::Result::Ok(socket)
        })
        .unwrap_or_else(|error| panic!("{who:?} to {to}: {error}"))
    }
}

/// Whose socket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Uid(u32),
    /// Root, with the sidecar's mark.
    Marked,
}

impl Who {
    /// A socket belongs to whom its thread is to file systems when it is made.
    fn socket(self, domain: Domain, kind: Type) -> io::Result<Socket> {
        let uid = match self {
            Self::Uid(uid) => uid,
            Self::Marked => 0,
        };
        setfsuid(Uid::from_raw(uid));
        let socket = Socket::new(domain, kind, None);
        setfsuid(Uid::from_raw(0));
        let socket = socket?;
        if matches!(self, Self::Marked) {
            socket.set_mark(MESH_MARK)?;
        }
        Ok(socket)
    }
}

/// The two namespaces.
pub(crate) struct World {
    pub(crate) alloc: Net,
    pub(crate) outside: Net,
}

impl World {
    /// Makes them; nothing where that cannot be done.
    pub(crate) fn new() -> Option<Self> {
        let works = |program: &str| {
            let mut command = Command::new(program);
            let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
            quiet
                .arg("-V")
                .status()
                .is_ok_and(|status| status.success())
        };
        if !geteuid().is_root() || !["iptables", "ip6tables", "ip"].into_iter().all(works) {
            eprintln!("skipped: needs root, iptables and iproute2");
            return None;
        }
        let Ok(world) = Net::new().and_then(|alloc| Ok((alloc, Net::new()?))) else {
            eprintln!("skipped: this root may not make network namespaces");
            return None;
        };
        let (alloc, outside) = world;
        alloc.program(&format!(
            "ip link add eth0 type veth peer name wire netns {}",
            outside.path
        ));
        for line in ["ip link set lo up", "ip link set wire up"] {
            outside.program(line);
        }
        for address in ["10.99.0.1/24 dev wire", "fd00:99::1/64 dev wire nodad"] {
            outside.program(&format!("ip addr add {address}"));
        }
        for address in [VIP, VIP6, RESOLVER, RESOLVER6, EXCLUDED, EXCLUDED6] {
            // Without this an address is not there yet for a moment.
            let nodad = if address.contains(':') { "nodad" } else { "" };
            outside.program(&format!("ip addr add {address} dev lo {nodad}"));
        }
        for line in [
            "ip link set lo up",
            "ip link set eth0 up",
            "ip addr add 10.99.0.2/24 dev eth0",
            "ip addr add fd00:99::2/64 dev eth0 nodad",
            "ip route add default via 10.99.0.1",
            "ip -6 route add default via fd00:99::1",
        ] {
            alloc.program(line);
        }
        Some(Self { alloc, outside })
    }

    /// `CONSUL_IPTABLES_CONFIG`, as Nomad writes it but for some keys.
    pub(crate) fn config(&self, changes: Value) -> Value {
        let mut config = json!({
            "ConsulDNSIP": "10.99.0.1",
            "ConsulDNSPort": 8600,
            "ProxyUserID": "101",
            "ProxyInboundPort": 20000,
            "ProxyOutboundPort": 15001,
            "ExcludeInboundPorts": ["9002"],
            "ExcludeOutboundPorts": ["5432"],
            "ExcludeOutboundCIDRs": ["203.0.113.0/24", "2001:db8:7::/48"],
            "ExcludeUIDs": ["1000"],
            "NetNS": self.alloc.path,
            "IptablesProvider": null,
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    /// Runs the plugin as Nomad does.
    pub(crate) fn plugin(&self, command: &str, config: Option<&Value>, path: &str) -> Answer {
        let mut variables = BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", "5f0a".to_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_NETNS", self.alloc.path.clone()),
            ("PATH", path.to_owned()),
        ]);
        if let Some(config) = config {
            let args =
                format!("IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG={config};NOMAD_REGION=global");
            variables.insert("CNI_ARGS", args);
        }
        let stdin = format!(
            r#"{{"cniVersion":"0.4.0","name":"nomad","type":"consul-cni","prevResult":{PREVIOUS}}}"#
        );
        mesh_cni::run(&|name| variables.get(name).cloned(), &mut stdin.as_bytes())
    }

    /// An ADD that must succeed, with the host's own programs.
    pub(crate) fn add(&self, changes: Value) {
        let path = std::env::var("PATH").unwrap();
        let answer = self.plugin("ADD", Some(&self.config(changes)), &path);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(answer.stdout, format!("{PREVIOUS}\n"));
        assert!(answer.log.unwrap().ends_with("; IPv4 and IPv6"));
    }
}

/// Takes the connection of a client: by its address, so that it is that one.
pub(crate) fn accept(listener: &Socket, client: &Socket) -> Socket {
    let (taken, from) = patient(|| listener.accept()).expect("it arrives");
    assert_eq!(from.as_socket(), client.local_addr().unwrap().as_socket());
    taken
}

/// Asserts that datagrams of a client arrive, and that the answer does. A kernel
/// whose cores are all busy may drop one of either, so it is asked again.
pub(crate) fn datagram(server: &Socket, client: &Socket) {
    client.set_read_timeout(Some(ANSWER)).unwrap();
    for _ in 0..DEADLINE.as_secs() {
        client.send(b"question").unwrap();
        let from = patient(|| server.peek_sender()).expect("it arrives");
        assert_eq!(from.as_socket(), client.local_addr().unwrap().as_socket());
        assert_eq!(read(server).unwrap(), b"question");
        server.send_to(b"answer", &from).unwrap();
        match read(client) {
            Ok(answer) => return assert_eq!(answer, b"answer"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    panic!("the server is asked, and its answers do not come back");
}

fn read(mut socket: &Socket) -> io::Result<Vec<u8>> {
    let mut into = [0; 16];
    let length = patient(|| socket.read(&mut into))?;
    Ok(into[..length].to_vec())
}

/// A call with a timeout is not resumed by the kernel after an interruption.
fn patient<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}

/// A folder for `PATH`, whose programs are others.
pub(crate) fn programs(links: &[(&str, &Path)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, target) in links {
        std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
    }
    folder
}
