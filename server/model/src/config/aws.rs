//! The `aws_pca` block of a server's `ca` block: which CA in AWS the mesh's is below, and how this
//! server reaches AWS.

use super::{set, some, url};
use crate::fields::Fields;

/// The `aws_pca` block. It has no credentials: they come by the chain of AWS's own SDK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsConfig {
    /// The CA's ARN. Needed.
    pub existing_arn: String,
    /// In place of the region's own endpoint, such as a VPC's. Default: none.
    pub endpoint: Option<String>,
}

impl AwsConfig {
    pub(super) fn read(&mut self, mut fields: Fields<'_>) {
        set(&mut self.existing_arn, fields.parsed("existing_arn", arn));
        some(&mut self.endpoint, fields.parsed("endpoint", url));
        fields.finish();
    }
}

fn arn(text: &str) -> Result<String, &'static str> {
    match is_pca_arn(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("must be a CA's ARN: `arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/ID`")
        }
    }
}

/// Whether this is the ARN of a CA in AWS Private CA.
pub fn is_pca_arn(text: &str) -> bool {
    let word = |text: &str, more: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        !text.is_empty() && text.chars().all(fine)
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [begin, partition, service, region, account, resource] = parts.as_slice() else {
        return false;
    };
    let id = resource.strip_prefix("certificate-authority/");
    text.len() <= 256
        && *begin == "arn"
        && *service == "acm-pca"
        && word(partition, "-")
        && word(region, "-")
        && word(account, "")
        && id.is_some_and(|id| word(id, "-"))
}
