//! The protocol, call by call, as Terraform makes the calls.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::plugin::{Function, FunctionError, Import, Parameter, Provider, Signature};
use crate::{Attribute, DataSource, Nesting, Stored, Wanted, async_trait};
use wire::{
    apply_resource_change, call_function, import_resource_state, plan_resource_change,
    read_data_source, read_resource, upgrade_resource_state, validate_resource_config,
};

/// What the thing does next.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Next {
    Work,
    FailHalfway,
    Hang,
    Panic,
    LeaveOut,
}

struct Thing {
    next: Mutex<Next>,
    secrets: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Resource for Thing {
    fn schema(&self) -> Schema {
        let element = vec![
            Attribute::string("word").required().describe("A word."),
            Attribute::number("weight")
                .default(1)
                .describe("Its weight."),
        ];
        Schema::new(
            "A thing.",
            vec![
                Attribute::string("name")
                    .required()
                    .replaces()
                    .describe("Its name."),
                Attribute::string("secret")
                    .optional()
                    .write_only()
                    .describe("Not kept."),
                Attribute::new("any", Type::Dynamic)
                    .optional()
                    .describe("Anything."),
                Attribute::nested("words", Nesting::Set, element)
                    .optional()
                    .describe("Words."),
                Attribute::string("id")
                    .computed()
                    .stable()
                    .describe("Its id."),
            ],
        )
        .version(2)
        .timeout(Operation::Create, Duration::from_secs(3600))
        .identified_by(&["name"])
    }

    async fn read(&self, _: &Context, stored: &mut Stored) -> Result<(), Diagnostics> {
        if stored.state.get("name").as_str() == Some("deleted") {
            stored.gone();
        }
        Ok(())
    }

    async fn create(
        &self,
        cx: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let secret = wanted.config.get("secret").as_str().unwrap_or_default();
        self.secrets.lock().unwrap().push(secret.to_owned());
        cx.warn(Diagnostic::warning("Made", ""));
        stored.state = wanted.planned.clone();
        stored.private.insert("step".into(), json!(1));
        let next = *self.next.lock().unwrap();
        match next {
            Next::Work => {}
            Next::LeaveOut => return Ok(()),
            Next::FailHalfway => return Err(Diagnostic::error("Half made", "").into()),
            Next::Hang => cx.until(std::future::pending::<()>()).await?,
            Next::Panic => panic!("as asked"),
        }
        stored.state.set("id", "7");
        Ok(())
    }

    async fn update(
        &self,
        _: &Context,
        wanted: &Wanted,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        stored.state = wanted.planned.clone();
        Ok(())
    }

    async fn delete(&self, _: &Context, stored: &mut Stored) -> Result<(), Diagnostics> {
        match stored.private.contains_key("locked") {
            true => Err(Diagnostic::error("It is locked", "").into()),
            false => Ok(()),
        }
    }

    async fn import(
        &self,
        _: &Context,
        target: &Import,
        stored: &mut Stored,
    ) -> Result<(), Diagnostics> {
        let name = match target {
            Import::Id(id) => id.as_str().into(),
            Import::Identity(identity) => identity.get("name").clone(),
        };
        stored.state.set("name", name);
        Ok(())
    }

    async fn upgrade(&self, version: i64, mut state: Json) -> Result<Json, Diagnostics> {
        assert_eq!(version, 1);
        state["name"] = state["title"].take();
        Ok(state)
    }
}

struct Empty;

#[async_trait]
impl Provider for Empty {
    fn schema(&self) -> Schema {
        Schema::default()
    }

    async fn configure(&self, _: &Context, _: &Value) -> Result<(), Diagnostics> {
        Ok(())
    }
}

#[async_trait]
impl DataSource for Empty {
    fn schema(&self) -> Schema {
        Schema::new("x", vec![Attribute::string("a").default("b").describe("x")])
    }

    async fn read(&self, _: &Context, config: &Value) -> Result<Value, Diagnostics> {
        Ok(config.clone())
    }
}

impl Function for Empty {
    fn signature(&self) -> Signature {
        Signature {
            summary: "Says it twice.".into(),
            description: String::new(),
            parameters: vec![Parameter {
                name: "text".into(),
                ty: Type::String,
                description: String::new(),
            }],
            returns: Type::Dynamic,
        }
    }

    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        match arguments[0].as_str().unwrap() {
            "" => Err(FunctionError::argument(0, "says nothing")),
            text => Ok(Value::Typed(Type::String, Box::new(text.repeat(2).into()))),
        }
    }
}

/// A provider with one thing, and its type.
pub(super) fn plugin(next: Next, secrets: &Arc<Mutex<Vec<String>>>) -> (Plugin, Type) {
    let thing = Thing {
        next: Mutex::new(next),
        secrets: Arc::clone(secrets),
    };
    let ty = thing.schema().ty();
    let plugin = Plugin::new("t", Empty)
        .resource("t_thing", thing)
        .data_source("t_data", Empty)
        .function("twice", Empty);
    (plugin, ty)
}

struct Asked {
    handler: Handler,
    ty: Type,
    secrets: Arc<Mutex<Vec<String>>>,
}

impl Asked {
    fn new(next: Next) -> Self {
        let secrets = Arc::default();
        let (plugin, ty) = plugin(next, &secrets);
        Self {
            handler: Handler::new(plugin),
            ty,
            secrets,
        }
    }

    fn sent(&self, value: &Value) -> Option<wire::DynamicValue> {
        Some(sent(value, &self.ty).unwrap())
    }

    fn read(&self, value: Option<&wire::DynamicValue>) -> Value {
        value
            .map(|one| super::value(Some(one), &self.ty).unwrap())
            .unwrap()
    }

    fn config(&self) -> Value {
        let word = Value::object([("word", Value::from("w")), ("weight", Value::Null)]);
        let any = Value::Typed(
            Type::list(Type::Bool),
            Box::new(Value::List(vec![true.into()])),
        );
        Value::object([
            ("name", "web".into()),
            ("secret", "s3cret".into()),
            ("any", any),
            ("words", Value::List(vec![word])),
        ])
    }

    async fn plan(&self, prior: &Value, config: &Value) -> plan_resource_change::Response {
        let asked = plan_resource_change::Request {
            type_name: "t_thing".into(),
            prior_state: self.sent(prior),
            proposed_new_state: self.sent(config),
            config: self.sent(config),
            ..Default::default()
        };
        self.handler.plan(asked).await
    }

    async fn apply(
        &self,
        prior: &Value,
        planned: Option<wire::DynamicValue>,
        config: &Value,
        private: &[u8],
    ) -> apply_resource_change::Response {
        let asked = apply_resource_change::Request {
            type_name: "t_thing".into(),
            prior_state: self.sent(prior),
            planned_state: planned,
            config: self.sent(config),
            planned_private: private.to_vec(),
            ..Default::default()
        };
        self.handler.apply(asked).await
    }

    async fn create(&self, config: &Value) -> apply_resource_change::Response {
        let planned = self.plan(&Value::Null, config).await;
        assert_eq!(planned.diagnostics, []);
        self.apply(
            &Value::Null,
            planned.planned_state,
            config,
            &planned.planned_private,
        )
        .await
    }
}

fn errors(said: &[wire::Diagnostic]) -> Vec<&str> {
    let error = i32::from(wire::diagnostic::Severity::Error);
    said.iter()
        .filter(|one| one.severity == error)
        .map(|one| one.summary.as_str())
        .collect()
}

#[tokio::test]
async fn a_creation_from_plan_to_state() {
    let asked = Asked::new(Next::Work);
    let done = asked.create(&asked.config()).await;
    assert_eq!(errors(&done.diagnostics), [""; 0]);
    assert_eq!(done.diagnostics[0].summary, "Made");
    let state = asked.read(done.new_state.as_ref());
    assert_eq!(state.get("id"), &"7".into());
    assert_eq!(state.get("any"), asked.config().get("any"));
    assert_eq!(
        state.get("words").elements()[0].get("weight"),
        &Value::from(1)
    );
    assert_eq!(done.private, br#"{"step":1}"#);
    let identity = done.new_identity.unwrap().identity_data.unwrap();
    assert_eq!(identity.msgpack, b"\x81\xa4name\xa3web");
    // And the same again changes nothing.
    let again = asked.plan(&state, &asked.config()).await;
    assert_eq!(asked.read(again.planned_state.as_ref()), state);
}

#[tokio::test]
async fn a_secret_reaches_the_provider_and_nothing_else() {
    let asked = Asked::new(Next::Work);
    let planned = asked.plan(&Value::Null, &asked.config()).await;
    let done = asked.create(&asked.config()).await;
    assert_eq!(*asked.secrets.lock().unwrap(), ["s3cret"]);
    for bytes in [
        planned.planned_state.unwrap().msgpack,
        done.new_state.unwrap().msgpack,
    ] {
        assert!(!bytes.windows(6).any(|part| part == b"s3cret"));
    }
    let old = validate_resource_config::Request {
        type_name: "t_thing".into(),
        config: asked.sent(&asked.config()),
        client_capabilities: None,
    };
    let said = asked.handler.validate_resource(old).await.diagnostics;
    assert_eq!(errors(&said), ["Terraform is too old for this attribute"]);
    assert!(!format!("{said:?}").contains("s3cret"));
}

#[tokio::test]
async fn what_is_half_made_is_kept() {
    for (next, error) in [
        (Next::FailHalfway, "Half made"),
        (Next::Panic, "The provider failed to create t_thing"),
        (Next::LeaveOut, "The provider left something out"),
    ] {
        let asked = Asked::new(next);
        let done = asked.create(&asked.config()).await;
        assert_eq!(errors(&done.diagnostics), [error]);
        let state = asked.read(done.new_state.as_ref());
        assert_eq!(state.get("name"), &"web".into());
        assert_eq!(state.get("id"), &Value::Null);
        assert_eq!(done.private, br#"{"step":1}"#);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_ends_with_its_time() {
    let asked = Asked::new(Next::Hang);
    let mut config = asked.config();
    config.set("timeouts", Value::object([("create", Value::from("5s"))]));
    let done = asked.create(&config).await;
    assert_eq!(
        errors(&done.diagnostics),
        ["The time to create t_thing is over"]
    );
    let said = done.diagnostics.last().unwrap();
    assert!(said.detail.contains("longer than 5s"), "{}", said.detail);
    let path = Path::of("timeouts").attribute("create").to_wire();
    assert_eq!(said.attribute, Some(path));
    assert_eq!(
        asked.read(done.new_state.as_ref()).get("name"),
        &"web".into()
    );
}

#[tokio::test]
async fn an_operation_ends_when_the_user_interrupts() {
    let asked = Asked::new(Next::Hang);
    let config = asked.config();
    let (done, ()) = tokio::join!(asked.create(&config), async {
        tokio::task::yield_now().await;
        asked.handler.stop();
    });
    assert_eq!(errors(&done.diagnostics), ["Interrupted"]);
    assert_eq!(
        asked.read(done.new_state.as_ref()).get("name"),
        &"web".into()
    );
}

#[tokio::test]
async fn a_deletion_forgets_only_when_it_succeeds() {
    let asked = Asked::new(Next::Work);
    let made = asked.create(&asked.config()).await;
    let state = asked.read(made.new_state.as_ref());
    let nothing = asked.sent(&Value::Null);
    let locked = asked
        .apply(&state, nothing.clone(), &Value::Null, br#"{"locked":1}"#)
        .await;
    assert_eq!(errors(&locked.diagnostics), ["It is locked"]);
    assert_eq!(asked.read(locked.new_state.as_ref()), state);
    let done = asked.apply(&state, nothing, &Value::Null, b"").await;
    assert_eq!(done.diagnostics, []);
    assert_eq!(asked.read(done.new_state.as_ref()), Value::Null);
}

#[tokio::test]
async fn another_name_makes_it_anew() {
    let asked = Asked::new(Next::Work);
    let made = asked.create(&asked.config()).await;
    let state = asked.read(made.new_state.as_ref());
    let mut config = asked.config();
    config.set("name", "other");
    let planned = asked.plan(&state, &config).await;
    assert_eq!(planned.requires_replace, [Path::of("name").to_wire()]);
}

#[tokio::test]
async fn imports_by_id_and_by_identity() {
    let asked = Asked::new(Next::Work);
    let identity = wire::ResourceIdentityData {
        identity_data: Some(wire::DynamicValue {
            msgpack: b"\x81\xa4name\xa3web".to_vec(),
            json: Vec::new(),
        }),
    };
    for (id, identity) in [("web", None), ("", Some(identity))] {
        let request = import_resource_state::Request {
            type_name: "t_thing".into(),
            id: id.into(),
            identity,
            ..Default::default()
        };
        let done = asked.handler.import(request).await;
        assert_eq!(done.diagnostics, []);
        let state = asked.read(done.imported_resources[0].state.as_ref());
        assert_eq!(state.get("name"), &"web".into());
    }
}

#[tokio::test]
async fn what_is_gone_is_read_as_nothing() {
    let asked = Asked::new(Next::Work);
    for (name, is_gone) in [("web", false), ("deleted", true)] {
        let state = Value::object([("name", Value::from(name))]);
        let request = read_resource::Request {
            type_name: "t_thing".into(),
            current_state: asked.sent(&state),
            ..Default::default()
        };
        let read = asked.handler.read(request).await;
        assert_eq!(asked.read(read.new_state.as_ref()).is_null(), is_gone);
    }
}

#[tokio::test]
async fn a_state_of_before_becomes_one_of_now() {
    let asked = Asked::new(Next::Work);
    let upgrade = |version, json: &str| {
        asked.handler.upgrade(upgrade_resource_state::Request {
            type_name: "t_thing".into(),
            version,
            raw_state: Some(wire::RawState {
                json: json.as_bytes().to_vec(),
                ..Default::default()
            }),
        })
    };
    let old = upgrade(1, r#"{"title":"web","gone":[1]}"#).await;
    assert_eq!(
        asked.read(old.upgraded_state.as_ref()).get("name"),
        &"web".into()
    );
    let same = upgrade(2, r#"{"name":"web","any":{"type":"string","value":"x"}}"#).await;
    let any = asked.read(same.upgraded_state.as_ref()).get("any").clone();
    assert_eq!(any, Value::Typed(Type::String, Box::new("x".into())));
    let newer = upgrade(3, "{}").await;
    assert_eq!(
        errors(&newer.diagnostics),
        ["The state was made by a newer provider"]
    );
    let broken = upgrade(2, r#"{"name":["s3cret"]}"#).await;
    assert_eq!(
        errors(&broken.diagnostics),
        ["What Terraform has kept cannot be read"]
    );
    assert!(!broken.diagnostics[0].detail.contains("s3cret"));
}

#[tokio::test]
async fn data_and_functions() {
    let asked = Asked::new(Next::Work);
    let read = asked.handler.read_data(read_data_source::Request {
        type_name: "t_data".into(),
        ..Default::default()
    });
    assert_eq!(
        read.await.state.unwrap().msgpack,
        b"\xc0",
        "nothing written, nothing read"
    );
    let call = |msgpack: &[u8]| {
        asked.handler.call(call_function::Request {
            name: "twice".into(),
            arguments: vec![wire::DynamicValue {
                msgpack: msgpack.to_vec(),
                json: Vec::new(),
            }],
        })
    };
    let result = call(b"\xa1x").result.unwrap();
    assert_eq!(result.msgpack, b"\x92\xc4\x08\"string\"\xa2xx");
    let error = call(b"\xa0").error.unwrap();
    assert_eq!(
        (error.text.as_str(), error.function_argument),
        ("says nothing", Some(0))
    );
}

#[test]
fn all_of_it_is_described() {
    let asked = Asked::new(Next::Work);
    let schemas = asked.handler.provider_schema();
    assert!(schemas.resource_schemas["t_thing"].block.is_some());
    assert!(schemas.functions.contains_key("twice"));
    let metadata = asked.handler.metadata();
    assert_eq!(metadata.resources[0].type_name, "t_thing");
    let identity = &asked.handler.identity_schemas().identity_schemas["t_thing"];
    assert!(identity.identity_attributes[0].required_for_import);
    let thing = &asked.handler.resources["t_thing"];
    assert_eq!(thing.mistakes(), [""; 0]);
}
