//! What of the CA comes to its end, told while there is time.

use mesh_ca::{AWS_PCA, AwsPca, CaState};

const DAY: u64 = 24 * 3600;
/// A root is told of so long before its end, or for the last tenth of its life if that is less: in
/// seconds.
const ROOT: u64 = 90 * DAY;

/// What ends soon or has ended, for people; `now` in seconds since 1970.
/// `aws`: this server's build has AWS Private CA.
pub(crate) fn warnings(ca: &CaState, aws: bool, now: u64) -> Vec<String> {
    let mut found = Vec::new();
    let left = |end: u64| match end.saturating_sub(now) {
        0 => "has expired".to_owned(),
        left if left < 2 * DAY => format!("ends in {}h", left / 3600),
        left => format!("ends in {}d", left / DAY),
    };
    if ca.provider == AWS_PCA && !aws {
        let build = AwsPca::not_built();
        found.push(format!(
            "the mesh's CA is in AWS, and {build}: as leader this server could not renew the \
             intermediate"
        ));
    }
    if let Some(root) = ca.active_root() {
        let life = root.not_after.saturating_sub(root.not_before);
        if root.not_after.saturating_sub(now) < ROOT.min(life / 10) {
            let left = left(root.not_after);
            let another = match ca.provider.as_str() {
                AWS_PCA => {
                    "make another CA in AWS, and change to it with `meshctl ca config write`"
                }
                _ => "`meshctl ca rotate` makes another",
            };
            found.push(format!("the root {left}: {another}"));
        }
    }
    if let Some(intermediate) = &ca.intermediate {
        // It is renewed when two thirds are over; by three quarters that should have gone well.
        let life = intermediate
            .not_after
            .saturating_sub(intermediate.not_before);
        if !ca.renews() {
            // Somebody has to have it signed elsewhere: that is not done in an hour.
            if intermediate.not_after.saturating_sub(now) < ROOT.min(life / 3) {
                let left = left(intermediate.not_after);
                found.push(format!(
                    "the intermediate {left}, and the root's key, which signs the next, is not \
                     here: have it signed where that is, and give it to `meshctl ca import` (the \
                     root stays); or change to a root of the servers' own: `meshctl ca rotate`"
                ));
            }
        } else if intermediate.not_after.saturating_sub(now) < life / 4 {
            let left = left(intermediate.not_after);
            found.push(format!(
                "the intermediate {left}, and was not renewed in time"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, UNIX_EPOCH};

    use mesh_ca::{CaConfig, SealingKey, create};

    use super::*;

    #[test]
    fn an_end_is_told_before_it_comes() {
        let begin = 1_800_000_000;
        let at = UNIX_EPOCH + Duration::from_secs(begin);
        let domain = "test.mesh".parse().unwrap();
        let sealing = SealingKey::generate().unwrap();
        let ca = create(&domain, "dc1", CaConfig::default(), &sealing, at).unwrap();
        assert!(warnings(&ca, false, begin + 200 * DAY).is_empty());
        let late = warnings(&ca, false, begin + 300 * DAY);
        assert_eq!(
            late,
            ["the intermediate ends in 65d, and was not renewed in time"]
        );
        let later = warnings(&ca, false, begin + 3600 * DAY).join("; ");
        assert!(later.contains("the root ends in 53d"), "{later}");
        assert!(later.contains("the intermediate has expired"), "{later}");
    }

    #[test]
    fn a_build_without_aws_says_so_where_the_ca_is_there() {
        let at = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (domain, sealing) = (
            "test.mesh".parse().unwrap(),
            SealingKey::generate().unwrap(),
        );
        let mut ca = create(&domain, "dc1", CaConfig::default(), &sealing, at).unwrap();
        ca.provider = AWS_PCA.to_owned();
        assert!(warnings(&ca, true, 1_800_000_000).is_empty());
        let said = warnings(&ca, false, 1_800_000_000).join("; ");
        assert!(said.contains("--features aws"), "{said}");
    }
}
