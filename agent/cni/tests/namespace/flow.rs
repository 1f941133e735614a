//! Where packets go.

use std::net::SocketAddr;

use serde_json::json;
use socket2::{Socket, Type};

use crate::world::{
    ALLOCATION, ALLOCATION6, EXCLUDED, EXCLUDED6, RESOLVER, RESOLVER6, VIP, VIP6, Who, World,
    accept, datagram,
};

const APPLICATION: Who = Who::Uid(12345);
const ROOT: Who = Who::Uid(0);
const SIDECAR: Who = Who::Uid(101);

/// The addresses of one family.
struct Side {
    any: &'static str,
    loopback: &'static str,
    stub: &'static str,
    vip: &'static str,
    resolver: &'static str,
    excluded: &'static str,
    allocation: &'static str,
}

const V4: Side = Side {
    any: "0.0.0.0",
    loopback: "127.0.0.1",
    stub: "127.0.0.53",
    vip: VIP,
    resolver: RESOLVER,
    excluded: EXCLUDED,
    allocation: ALLOCATION,
};

const V6: Side = Side {
    any: "[::]",
    loopback: "[::1]",
    stub: "[::1]",
    vip: VIP6,
    resolver: RESOLVER6,
    excluded: EXCLUDED6,
    allocation: ALLOCATION6,
};

fn at(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Where a connection was to go before it was redirected.
fn original(taken: &Socket) -> SocketAddr {
    let address = match taken.local_addr().unwrap().is_ipv4() {
        true => taken.original_dst_v4(),
        false => taken.original_dst_v6(),
    };
    address.unwrap().as_socket().unwrap()
}

#[test]
fn outbound_needs_root() {
    let Some(world) = World::new() else { return };
    world.add(json!({}));
    for side in [V4, V6] {
        let sidecar = world.alloc.serve(Type::STREAM, &at(side.loopback, 15001));
        for who in [APPLICATION, ROOT] {
            let to = at(side.vip, 80);
            let client = world.alloc.connect(Type::STREAM, who, &to);
            let taken = accept(&sidecar, &client);
            assert_eq!(original(&taken), to.parse().unwrap());
        }
        let outside = world.outside.serve(Type::STREAM, &at(side.any, 80));
        for (who, host) in [
            (SIDECAR, side.vip),
            (Who::Marked, side.vip),
            (Who::Uid(1000), side.vip),
            (APPLICATION, side.excluded),
        ] {
            let client = world.alloc.connect(Type::STREAM, who, &at(host, 80));
            accept(&outside, &client);
        }
        let database = world.outside.serve(Type::STREAM, &at(side.any, 5432));
        let client = world
            .alloc
            .connect(Type::STREAM, APPLICATION, &at(side.vip, 5432));
        accept(&database, &client);
        let neighbour = world.alloc.serve(Type::STREAM, &at(side.loopback, 8080));
        let client = world
            .alloc
            .connect(Type::STREAM, APPLICATION, &at(side.loopback, 8080));
        accept(&neighbour, &client);
    }
}

#[test]
fn a_sidecar_of_root_beside_root_needs_root() {
    let Some(world) = World::new() else { return };
    world.add(json!({"ProxyUserID": "0"}));
    for side in [V4, V6] {
        let sidecar = world.alloc.serve(Type::STREAM, &at(side.loopback, 15001));
        let outside = world.outside.serve(Type::STREAM, &at(side.any, 80));
        let client = world.alloc.connect(Type::STREAM, ROOT, &at(side.vip, 80));
        accept(&sidecar, &client);
        let client = world
            .alloc
            .connect(Type::STREAM, Who::Marked, &at(side.vip, 80));
        accept(&outside, &client);
    }
}

#[test]
fn dns_needs_root() {
    let Some(world) = World::new() else { return };
    world.add(json!({}));
    for side in [V4, V6] {
        let sidecar = at(side.loopback, 15053);
        let tcp = world.alloc.serve(Type::STREAM, &sidecar);
        let udp = world.alloc.serve(Type::DGRAM, &sidecar);
        // An excluded prefix does not take the name server in it with it.
        for host in [side.resolver, side.stub, side.excluded] {
            let to = at(host, 53);
            datagram(&udp, &world.alloc.connect(Type::DGRAM, APPLICATION, &to));
            let client = world.alloc.connect(Type::STREAM, APPLICATION, &to);
            assert_eq!(original(&accept(&tcp, &client)), to.parse().unwrap());
        }
        let to = at(side.resolver, 53);
        let tcp = world.outside.serve(Type::STREAM, &to);
        let udp = world.outside.serve(Type::DGRAM, &to);
        for who in [SIDECAR, Who::Marked, Who::Uid(1000)] {
            datagram(&udp, &world.alloc.connect(Type::DGRAM, who, &to));
            accept(&tcp, &world.alloc.connect(Type::STREAM, who, &to));
        }
    }
}

#[test]
fn without_dns_needs_root() {
    let Some(world) = World::new() else { return };
    world.add(json!({"ConsulDNSIP": "", "ConsulDNSPort": 0}));
    for side in [V4, V6] {
        let to = at(side.resolver, 53);
        let resolver = world.outside.serve(Type::DGRAM, &to);
        datagram(
            &resolver,
            &world.alloc.connect(Type::DGRAM, APPLICATION, &to),
        );
        let sidecar = world.alloc.serve(Type::STREAM, &at(side.loopback, 15001));
        accept(
            &sidecar,
            &world.alloc.connect(Type::STREAM, APPLICATION, &to),
        );
    }
}

#[test]
fn inbound_needs_root() {
    let Some(world) = World::new() else { return };
    world.add(json!({}));
    for side in [V4, V6] {
        let sidecar = world.alloc.serve(Type::STREAM, &at(side.any, 20000));
        // The application's port, the sidecar's own others, and its inbound one.
        let application = world.alloc.serve(Type::STREAM, &at(side.any, 8080));
        for port in [8080, 15001, 15053, 53, 20000] {
            let to = at(side.allocation, port);
            let client = world.outside.connect(Type::STREAM, ROOT, &to);
            let taken = accept(&sidecar, &client);
            assert_eq!(original(&taken), to.parse().unwrap());
        }
        let exposed = world.alloc.serve(Type::STREAM, &at(side.any, 9002));
        let client = world
            .outside
            .connect(Type::STREAM, ROOT, &at(side.allocation, 9002));
        accept(&exposed, &client);
        let udp = world.alloc.serve(Type::DGRAM, &at(side.allocation, 8080));
        let client = world
            .outside
            .connect(Type::DGRAM, ROOT, &at(side.allocation, 8080));
        datagram(&udp, &client);
        // What the sidecar passes on to the application, and a neighbour's call.
        let client = world
            .alloc
            .connect(Type::STREAM, SIDECAR, &at(side.loopback, 8080));
        accept(&application, &client);
    }
}
