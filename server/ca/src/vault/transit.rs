//! Data keys that a key of Vault's transit engine wraps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vaultrs::transit::data;
use zeroize::{Zeroize as _, Zeroizing};

use super::Vault;
use crate::error::CaError;
use crate::keyring::{TransitPlace, Wrapped};
use crate::seal::SealingKey;

impl Vault {
    /// A new data key, wrapped.
    pub(crate) async fn new_wrapped_key(
        &self,
        place: &TransitPlace,
    ) -> Result<SealingKey, CaError> {
        let key = SealingKey::generate()?;
        let text = Zeroizing::new(STANDARD.encode(key.bytes()));
        let (mount, name, text) = (place.mount.as_str(), place.key.as_str(), text.as_str());
        let what = format!("POST {mount}/encrypt/{name}");
        let wrapped = self.ask(&what, |client| async move {
            data::encrypt(&*client, mount, name, text, None).await
        });
        let data_key = wrapped.await?.ciphertext;
        let wrapped = Wrapped {
            mount: mount.to_owned(),
            key: name.to_owned(),
            data_key,
        };
        // What Vault cannot open again is not sealed with.
        let id = key.id().to_owned();
        self.unwrap_key(&wrapped, &id).await
    }

    /// A data key, unwrapped: the one with this id.
    pub(crate) async fn unwrap_key(
        &self,
        wrapped: &Wrapped,
        id: &str,
    ) -> Result<SealingKey, CaError> {
        let (mount, name) = (wrapped.mount.as_str(), wrapped.key.as_str());
        let (what, data_key) = (format!("POST {mount}/decrypt/{name}"), &wrapped.data_key);
        let opened = self.ask(&what, |client| async move {
            data::decrypt(&*client, mount, name, data_key, None).await
        });
        let mut opened = opened.await?;
        let key = STANDARD.decode(&opened.plaintext).map(Zeroizing::new);
        opened.plaintext.zeroize();
        let wrong = || {
            CaError::state(
                "sealing",
                format!("{what}: what Vault opened is another key"),
            )
        };
        let key = key.map_err(|_| wrong())?;
        let key = SealingKey::of_vault(&key, wrapped.clone()).ok_or_else(wrong)?;
        match key.id() == id {
            true => Ok(key),
            false => Err(wrong()),
        }
    }
}
