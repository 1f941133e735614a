//! The schemas of the OpenAPI document. The nouns' own code is what reads them; a test holds every
//! field that the server answers against these.

use serde_json::{Map, Value, json};

/// Every schema, by name.
pub(crate) fn all() -> Value {
    let mut all = Map::new();
    for part in [shared(), nouns(), rows(), catalog(), answers()] {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

/// An object with these fields.
fn object(required: &[&str], properties: Value) -> Value {
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

fn of(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn map(values: Value) -> Value {
    json!({"type": "object", "additionalProperties": values})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn number() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// RFC 3339.
fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

fn words(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn or_null(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// A noun's schema with further fields.
fn with(noun: &Value, more: Value) -> Value {
    let mut schema = noun.clone();
    if let (Some(properties), Value::Object(more)) = (schema["properties"].as_object_mut(), more) {
        properties.extend(more);
    }
    schema
}

fn shared() -> Value {
    json!({
        "Key": object(&["name"], json!({
            "namespace": {"type": "string", "default": "default"},
            "name": text(),
        })),
        "EntryKey": {"oneOf": [
            {"type": "string", "const": "mesh"},
            object(&["service"], json!({"service": of("Key")})),
            object(&["route"], json!({"route": of("Key")})),
            object(&["intention"], json!({"intention": object(
                &["source", "destination"],
                json!({"source": of("Key"), "destination": of("Key")}),
            )})),
            object(&["gateway"], json!({"gateway": of("Key")})),
        ]},
        "Version": object(&["epoch", "index"], json!({"epoch": text(), "index": number()})),
        "Duration": {"type": "string", "description": "A number with a unit: 250ms, 5s, 1m30s"},
        "Action": words(&["allow", "deny"]),
        "Outbound": words(&["any", "mesh_only"]),
        "TlsPolicy": object(&[], json!({
            "min_version": words(&mesh_model::TlsVersion::ALL.map(|one| one.as_str())),
            "cipher_suites": list(words(&mesh_model::CipherSuite::ALL.map(|one| one.as_str()))),
            "key_exchange": list(words(&mesh_model::KeyExchange::ALL.map(|one| one.as_str()))),
        })),
        "Protocol": words(&["tcp", "http", "http2", "grpc"]),
        "Finding": object(&["key", "message"], json!({
            "key": or_null(of("EntryKey")),
            "message": text(),
        })),
        "Error": object(&["error"], json!({"error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": text(),
                "message": {"type": "string", "description": "Says what to do"},
                "request_id": text(),
                "findings": list(of("Finding")),
                "references": list(of("EntryKey")),
                "dangling": list(object(&["key", "referrers"], json!({
                    "key": of("EntryKey"),
                    "referrers": list(object(&["by", "message"], json!({
                        "by": of("EntryKey"), "message": text(),
                    }))),
                }))),
                "key": {"anyOf": [of("EntryKey"), text()]},
                "owner": text(),
                "expected": number(),
                "actual": number(),
            },
        }})),
    })
}

fn nouns() -> Value {
    let condition = object(
        &["name"],
        json!({
            "name": text(), "present": boolean(), "exact": text(), "prefix": text(),
            "suffix": text(), "contains": text(), "regex": text(), "invert": boolean(),
        }),
    );
    let request = json!({
        "path_exact": text(), "path_prefix": text(), "path_regex": text(),
        "methods": list(text()),
        "headers": list(of("Condition")),
        "query": list(of("Condition")),
    });
    let request_match = object(&[], request);
    json!({
        "Condition": condition,
        "RequestMatch": request_match,
        "Permission": with(&request_match, json!({"action": of("Action")})),
        "Intention": intention(),
        "Gateway": gateway(),
        "Service": service(),
        "Route": object(&[], json!({
            "namespace": text(),
            "name": text(),
            "rules": list(of("Rule")),
        })),
        "Rule": object(&["name"], json!({
            "name": text(),
            "match": list(of("RequestMatch")),
            "to": list(object(&[], json!({
                "service": of("Key"),
                "subset": text(),
                "weight": {"type": "number", "minimum": 0, "maximum": 100, "default": 100},
            }))),
            "timeout": of("Duration"),
            "retries": object(&["attempts"], json!({
                "attempts": {"type": "integer", "minimum": 1},
                "per_try_timeout": of("Duration"),
                "on": list(text()),
                "status_codes": list(number()),
            })),
        })),
        "Mesh": object(&[], json!({
            "default_intention": of("Action"),
            "outbound": of("Outbound"),
            "tls": of("TlsPolicy"),
        })),
    })
}

fn intention() -> Value {
    object(
        &[],
        json!({
            "source": of("Key"),
            "destination": of("Key"),
            "action": of("Action"),
            "permissions": list(of("Permission")),
            "description": text(),
            "meta": map(text()),
        }),
    )
}

fn service() -> Value {
    object(
        &[],
        json!({
            "namespace": text(),
            "name": text(),
            "protocol": of("Protocol"),
            "load_balancer": words(&["round_robin", "least_request", "random"]),
            "connect_timeout": of("Duration"),
            "request_timeout": of("Duration"),
            "outlier_detection": object(&["consecutive_5xx"], json!({
                "consecutive_5xx": {"type": "integer", "minimum": 1},
                "base_ejection_time": of("Duration"),
                "max_ejection_percent": {"type": "integer", "minimum": 1, "maximum": 100},
            })),
            "subsets": map(object(&[], json!({
                "meta": map(text()),
                "tags": list(text()),
                "only_passing": boolean(),
            }))),
            "default_subset": text(),
            "meta": map(text()),
        }),
    )
}

fn gateway() -> Value {
    let listener = object(
        &["port"],
        json!({
            "port": number(),
            "protocol": of("Protocol"),
            "services": list(object(&["service"], json!({
                "service": of("Key"), "hosts": list(text()),
            }))),
        }),
    );
    object(
        &[],
        json!({
            "namespace": text(),
            "name": text(),
            "ingress": object(&[], json!({
                "tls": object(&[], json!({"enabled": boolean()})),
                "listeners": list(listener),
            })),
            "terminating": object(&[], json!({
                "services": list(object(&["service"], json!({
                    "service": of("Key"), "ca_file": text(), "cert_file": text(),
                    "key_file": text(), "sni": text(),
                }))),
            })),
            "meta": map(text()),
        }),
    )
}

fn rows() -> Value {
    let nouns = nouns();
    let row = |name: &str, more: Value| {
        let row = json!({
            "owner": text(), "create_index": number(), "modify_index": number(),
            "created_at": time(), "modified_at": time(),
        });
        with(&with(&nouns[name], row), more)
    };
    json!({
        "IntentionRow": row("Intention", json!({
            "precedence": {"type": "integer", "minimum": 1, "maximum": 9},
        })),
        "ServiceRow": row("Service", json!({
            "defined": boolean(), "instances": of("Counts"), "virtual": of("Virtual"),
        })),
        "RouteRow": row("Route", json!({})),
        "GatewayRow": row("Gateway", json!({})),
        "MeshRow": row("Mesh", json!({
            "defined": boolean(),
            "effective": object(
                &["default_intention", "outbound", "tls"],
                json!({
                    "default_intention": of("Action"), "outbound": of("Outbound"),
                    "tls": of("TlsPolicy"),
                }),
            ),
        })),
    })
}

fn catalog() -> Value {
    let node = object(
        &["id", "name", "address", "state", "instances"],
        json!({
            "id": text(), "name": text(), "address": text(), "version": text(),
            "meta": map(text()), "state": words(&["alive", "silent"]),
            "silent_since": or_null(number()), "instances": number(),
            "create_index": number(), "modify_index": number(),
            "created_at": time(), "modified_at": time(),
        }),
    );
    json!({
        "Counts": object(&["total", "passing", "warning", "critical", "silent"], json!({
            "total": number(), "passing": number(), "warning": number(),
            "critical": number(), "silent": number(),
        })),
        "NodeDetail": with(&node, json!({"instances": list(of("Instance"))})),
        "Node": node,
        "Registered": object(&["namespace", "name", "tags", "instances", "virtual"], json!({
            "namespace": text(), "name": text(), "tags": list(text()), "instances": of("Counts"),
            "virtual": of("Virtual"),
        })),
        "Virtual": object(&["ip4", "ip6"], json!({
            "ip4": {"type": "string", "format": "ipv4"},
            "ip6": {"type": "string", "format": "ipv6"},
        })),
        "Instance": object(&["namespace", "service", "id", "node", "status"], json!({
            "namespace": text(), "service": text(), "id": text(), "node": text(),
            "node_name": text(), "node_address": text(),
            "node_state": words(&["alive", "silent"]),
            "address": text(), "port": number(), "tags": list(text()), "meta": map(text()),
            "weights": object(&["passing", "warning"], json!({
                "passing": number(), "warning": number(),
            })),
            "proxy": or_null(object(&["id", "address", "port"], json!({
                "id": text(), "address": text(), "port": number(), "native": boolean(),
            }))),
            "gateway": words(&["ingress", "terminating"]),
            "checks": map(object(&["name", "status"], json!({
                "name": text(), "status": of("CheckStatus"),
            }))),
            "status": of("CheckStatus"),
            "create_index": number(), "modify_index": number(),
            "created_at": time(), "modified_at": time(),
        })),
        "CheckStatus": words(&["passing", "warning", "critical"]),
    })
}

fn answers() -> Value {
    let written = json!({
        "change": words(&["created", "updated", "unchanged", "deleted", "absent"]),
        "index": number(),
        "epoch": text(),
        "warnings": list(of("Finding")),
        "row": {"type": "object"},
    });
    let result = object(
        &["key", "change", "index"],
        json!({"key": of("EntryKey"), "change": text(), "index": number()}),
    );
    let mut all = json!({
        "Written": object(&["change", "index", "epoch", "warnings"], written),
        "Apply": object(&["ops"], json!({"ops": list(object(&[], json!({
            "put": object(&["kind", "value"], json!({
                "kind": words(&["mesh", "service", "route", "intention", "gateway"]),
                "value": {"type": "object"},
            })),
            "delete": of("EntryKey"),
            "require": of("EntryKey"),
            "cas": number(),
        })))})),
        "Applied": object(&["index", "epoch", "dry_run", "warnings", "results"], json!({
            "index": number(), "epoch": text(), "dry_run": boolean(),
            "warnings": list(of("Finding")), "results": list(result.clone()),
        })),
        "ConfigRow": object(&["kind", "namespace", "name", "text", "rows"], json!({
            "kind": text(), "namespace": text(), "name": text(), "text": text(),
            "rows": list(of("EntryKey")), "owner": text(),
            "create_index": number(), "modify_index": number(),
            "created_at": time(), "modified_at": time(),
        })),
        "ConfigWritten": object(&["kind", "namespace", "name", "change", "index", "results"], json!({
            "kind": text(), "namespace": text(), "name": text(), "change": text(),
            "index": number(), "epoch": text(), "warnings": list(of("Finding")),
            "results": list(result.clone()),
        })),
        "Removed": object(&["removed", "name"], json!({"removed": text(), "name": text()})),
        "Restored": object(&["index", "epoch"], json!({"index": number(), "epoch": text()})),
        "Peer": object(&["id", "name", "address", "voter", "leader", "self"], json!({
            "id": text(), "name": text(), "address": text(),
            "voter": boolean(), "leader": boolean(), "self": boolean(),
        })),
        "Nothing": object(&[], json!({})),
        "NomadSelf": object(&["Config", "DebugConfig", "Member", "Meta", "Stats"], json!({
            "Config": {"type": "object"}, "DebugConfig": {"type": "object"},
            "Member": {"type": "object"}, "Meta": {"type": "object"}, "Stats": {"type": "object"},
        })),
        "NomadInstance": object(&["Node", "Address", "Datacenter", "ServiceID", "ServiceName", "ServiceAddress",
            "ServicePort", "ServiceTags", "ServiceMeta"], json!({
            "Node": text(), "Address": text(), "Datacenter": text(), "ServiceID": text(),
            "ServiceName": text(), "ServiceAddress": text(), "ServicePort": number(),
            "ServiceTags": list(text()), "ServiceMeta": map(text()),
            "CreateIndex": number(), "ModifyIndex": number(),
        })),
        "ById": map(json!({"type": "object"})),
        "Text": text(),
        "Ready": object(&["ready"], json!({"ready": boolean(), "reason": text()})),
    });
    for part in [checked(), proxies(), authority(), status()] {
        if let (Some(all), Value::Object(part)) = (all.as_object_mut(), part) {
            all.extend(part);
        }
    }
    all
}

fn checked() -> Value {
    let permission = object(
        &["number", "action", "matches", "note"],
        json!({
            "number": number(), "action": of("Action"),
            "matches": or_null(boolean()), "note": text(),
        }),
    );
    json!({
        "Check": object(&["source", "destination"], json!({
            "source": text(), "destination": text(), "method": text(), "path": text(),
            "headers": map(text()), "query": text(),
        })),
        "Checked": object(&["allowed", "decided_by_request", "permissions", "reason"], json!({
            "allowed": boolean(),
            "decided_by_request": boolean(),
            "permissions": number(),
            "reason": text(),
            "intention": or_null(object(
                &["source", "destination"],
                json!({"source": of("Key"), "destination": of("Key")}),
            )),
            "permission": or_null(number()),
            "default_intention": of("Action"),
            "protocol": of("Protocol"),
            "explain": list(object(
                &["source", "destination", "precedence", "says", "governs"],
                json!({
                    "source": of("Key"), "destination": of("Key"), "precedence": number(),
                    "says": words(&["allow", "deny", "permissions"]), "governs": boolean(),
                    "permissions": list(permission),
                }),
            )),
        })),
    })
}

fn proxies() -> Value {
    json!({
        "Proxies": object(&["version", "unreachable_servers", "proxies"], json!({
            "version": of("Version"),
            "unreachable_servers": list(text()),
            "proxies": list(of("Proxy")),
        })),
        "Proxy": object(&["proxy", "namespace", "service", "node", "connected", "in_sync"], json!({
            "proxy": text(), "namespace": text(), "service": text(), "instance": text(),
            "node": text(), "server": text(), "connected": boolean(), "in_sync": boolean(),
            "acked": or_null(of("Version")), "sent": or_null(of("Version")),
            "leaf_not_after": or_null(number()), "version": text(), "problem": text(),
            "not_understood": list(text()),
        })),
        "Waited": object(&["live", "index", "agents", "proxies", "lagging"], json!({
            "live": boolean(), "index": number(), "agents": number(), "proxies": number(),
            "lagging": list(object(&["node", "proxy", "reason", "acked"], json!({
                "node": text(), "proxy": or_null(text()), "reason": text(),
                "acked": or_null(of("Version")),
            }))),
            "not_connected": list(text()),
            "unreachable_servers": list(text()),
        })),
    })
}

fn authority() -> Value {
    json!({
        "Roots": object(&["trust_domain", "active_root", "roots"], json!({
            "trust_domain": text(),
            "active_root": or_null(text()),
            "roots": list(object(&["id", "pem", "not_before", "not_after", "active"], json!({
                "id": text(), "pem": text(), "not_before": time(), "not_after": time(),
                "active": boolean(),
            }))),
        })),
        "CaConfig": object(&["provider"], json!({
            "provider": words(&["built_in", "vault", "aws_pca"]), "leaf_ttl": of("Duration"),
            "intermediate_ttl": of("Duration"), "root_ttl": of("Duration"),
            "key_type": words(&["ec-p256", "ec-p384", "rsa-2048", "rsa-4096"]),
            "vault": or_null(object(&["root_pki_path", "intermediate_pki_path"], json!({
                "root_pki_path": text(), "intermediate_pki_path": text(),
                "leaf_signing": words(&["vault", "cluster"]),
            }))),
            "aws_pca": or_null(object(&["existing_arn"], json!({"existing_arn": text()}))),
        })),
        "CaChange": object(&["changes", "rotates", "root", "index"], json!({
            "changes": list(text()), "rotates": boolean(), "root": or_null(text()),
            "cross_signature": or_null(of("CrossSignature")), "index": number(),
        })),
        "CrossSignature": object(&["by", "made", "reason"], json!({
            "by": text(), "made": boolean(), "reason": or_null(text()),
        })),
        "Leaf": object(
            &["serial", "namespace", "service", "node", "proxy", "signed", "not_after", "revoked"],
            json!({
                "serial": text(), "namespace": text(), "service": text(), "node": text(),
                "proxy": text(), "signed": time(), "not_after": time(), "revoked": boolean(),
            }),
        ),
        "Revocation": object(&["kind", "reason", "created_at"], json!({
            "kind": words(&["service", "leaf"]),
            "serial": text(), "namespace": text(), "service": text(), "node": text(),
            "proxy": text(), "signed": time(), "not_after": time(), "until": time(),
            "reason": text(), "create_index": number(), "modify_index": number(),
            "created_at": time(), "modified_at": time(),
        })),
        "Revoke": object(&[], json!({
            "service": of("Key"), "serial": text(),
            "reason": {"type": "string", "maxLength": 512},
        })),
        "Unrevoke": object(&["service"], json!({"service": of("Key")})),
        "CaImport": object(&["certificates", "key"], json!({
            "certificates": text(), "key": text(), "root_key": or_null(text()),
        })),
        "CaSealing": object(&["to"], json!({"to": words(&["file", "transit"])})),
        "CaStatus": object(&["provider", "ready", "problem"], json!({
            "provider": or_null(text()), "ready": boolean(), "problem": or_null(text()),
            "leaf_ttl": or_null(of("Duration")), "root_not_after": or_null(time()),
            "intermediate_not_after": or_null(time()),
            "leaf_signing": or_null(words(&["vault", "cluster"])),
            "root_key": or_null(words(&["sealed", "vault", "elsewhere"])),
            "sealing": or_null(object(&["by", "key_id", "opens", "problem"], json!({
                "by": words(&["file", "transit"]), "key_id": text(), "transit": or_null(text()),
                "opens": boolean(), "problem": or_null(text()),
            }))),
            "warnings": list(text()), "configured_otherwise": list(text()),
            "rotation": or_null(object(&["to", "proxies", "trusting", "waits", "waiting"], json!({
                "to": text(), "provider": text(), "began": time(), "proxies": number(),
                "trusting": number(), "waits": number(),
                "waiting": list(object(&["node", "proxy", "reason"], json!({
                    "node": text(), "proxy": text(), "reason": text(),
                }))),
            }))),
            "roots": or_null(list(object(&["id", "state"], json!({
                "id": text(), "subject": text(), "key_type": text(),
                "state": words(&["active", "next", "retiring"]), "not_after": time(),
                "retires": or_null(time()), "leaves": or_null(number()),
                "cross_signature": or_null(of("CrossSignature")),
            })))),
            "vault": or_null(object(&["address", "state", "reason"], json!({
                "address": text(), "reason": or_null(text()), "since": time(),
                "state": words(&["unknown", "ok", "sealed", "down", "denied"]),
                "token_seconds": or_null(number()),
            }))),
            "aws_pca": or_null(object(&["existing_arn", "state", "reason"], json!({
                "existing_arn": text(), "reason": or_null(text()), "since": time(),
                "state": words(&["unknown", "ok", "unusable", "throttled", "down", "denied"]),
            }))),
        })),
    })
}

fn status() -> Value {
    let server = json!({"id": text(), "name": text(), "address": text()});
    let server = object(&["id", "name", "address"], server);
    json!({
        "Status": object(&["server", "cluster", "state", "leader", "health"], json!({
            "server": with(&server, json!({"version": text()})),
            "cluster": or_null(object(&["id", "trust_domain", "datacenter", "level"], json!({
                "id": text(), "trust_domain": text(), "datacenter": text(), "level": number(),
            }))),
            "state": words(&["leader", "follower", "candidate", "learner", "stopped"]),
            "leader": or_null(server),
            "term": number(), "index": number(), "epoch": text(),
            "last_contact_ms": or_null(number()),
            "health": object(&["status", "reason"], json!({
                "status": words(&["ok", "degraded", "failed"]), "reason": or_null(text()),
            })),
            "agents": number(),
        })),
    })
}
