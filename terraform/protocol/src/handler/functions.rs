//! Functions.

use super::{Handler, sent, value};
use crate::plugin::{FunctionError, Signature};
use crate::proto::tfplugin6 as wire;
use crate::{Type, Value};
use wire::{call_function, get_functions};

impl Handler {
    /// How each is called.
    pub fn functions(&self) -> get_functions::Response {
        let all = self.plugin.functions.iter();
        get_functions::Response {
            functions: all
                .map(|(name, one)| ((*name).to_owned(), signature(&one.signature())))
                .collect(),
            diagnostics: Vec::new(),
        }
    }

    /// Calls one.
    pub fn call(&self, asked: call_function::Request) -> call_function::Response {
        let (result, error) = match self.called(&asked) {
            Ok(result) => (Some(result), None),
            Err(error) => (
                None,
                Some(wire::FunctionError {
                    text: error.text,
                    function_argument: error.argument.and_then(|at| i64::try_from(at).ok()),
                }),
            ),
        };
        call_function::Response { result, error }
    }

    fn called(&self, asked: &call_function::Request) -> Result<wire::DynamicValue, FunctionError> {
        let whole = |text: String| FunctionError {
            text,
            argument: None,
        };
        let function = self.plugin.functions.get(asked.name.as_str());
        let function =
            function.ok_or_else(|| whole(format!("there is no function {}", asked.name)))?;
        let signature = function.signature();
        if signature.parameters.len() != asked.arguments.len() {
            let count = signature.parameters.len();
            return Err(whole(format!("it takes {count} arguments")));
        }
        let mut arguments = Vec::new();
        for (at, (one, parameter)) in asked
            .arguments
            .iter()
            .zip(&signature.parameters)
            .enumerate()
        {
            let read = value(Some(one), &parameter.ty);
            let read = read.map_err(|error| FunctionError::argument(at, error.detail))?;
            if read.is_null() || !read.is_known() {
                return Err(FunctionError::argument(
                    at,
                    "it must be known, and not null",
                ));
            }
            arguments.push(read);
        }
        let result: Value = function.call(&arguments)?;
        sent(&result, &signature.returns).map_err(|error| whole(error.detail))
    }
}

fn signature(signature: &Signature) -> wire::Function {
    let markdown = wire::StringKind::Markdown.into();
    let parameters = signature
        .parameters
        .iter()
        .map(|one| wire::function::Parameter {
            name: one.name.clone(),
            r#type: Type::to_bytes(&one.ty),
            allow_null_value: false,
            allow_unknown_values: false,
            description: one.description.clone(),
            description_kind: markdown,
        });
    wire::Function {
        parameters: parameters.collect(),
        variadic_parameter: None,
        r#return: Some(wire::function::Return {
            r#type: signature.returns.to_bytes(),
        }),
        summary: signature.summary.clone(),
        description: signature.description.clone(),
        description_kind: markdown,
        deprecation_message: String::new(),
    }
}
