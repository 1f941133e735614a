//! `/v1/tomorrow`: asks for what only the next level has. Of a server that tests run beside those
//! of today; no release has it, and the API's document does not know it.

use futures::FutureExt;
use http::Method;
use mesh_state::Command;

use super::error::ApiError;
use super::route::{Call, Reply, Route, Shape};
use super::rows;

pub(crate) fn routes() -> Vec<Route> {
    vec![Route::act(
        Method::POST,
        "/v1/tomorrow",
        "tomorrow",
        "Makes the service `tomorrow`",
        Shape::One("Written"),
        |call| post(call).boxed(),
    )]
}

async fn post(call: Call) -> Result<Reply, ApiError> {
    let applied = call.core.write(Command::Tomorrow {}).await?;
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}
