//! What the orders of one issuer share: the account and what is known of the CA.

use std::sync::Arc;
use std::time::{Duration, Instant};

use instant_acme::{Account, ExternalAccountKey, Key, NewAccount};
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::sleep;

use crate::account_key::AccountKey;
use crate::challenges::Challenges;
use crate::dns::Solver;
use crate::failure::Failure;
use crate::http::{Client, Transport};
use crate::issuer::Issuer;
use crate::state::{Directory, Lock};

/// Orders that are worked on at once.
const AT_ONCE: usize = 4;

/// How long another process may take to make the account, and how often it is looked.
const REGISTERING: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);

/// How long what a CA says of itself is believed.
const META_LIFE: Duration = Duration::from_secs(86_400);

/// An issuer at work.
pub struct Session {
    /// The settings.
    pub issuer: Issuer,
    /// What outlives the process.
    pub directory: Directory,
    pub(crate) challenges: Arc<Challenges>,
    dns: std::sync::Mutex<Option<Arc<dyn Solver>>>,
    pub(crate) client: Client,
    pub(crate) turns: Semaphore,
    account: Mutex<Option<Account>>,
    /// The key of the account where it is ours and cannot be kept on disk.
    key: std::sync::Mutex<Option<AccountKey>>,
    meta: Mutex<Option<(Instant, Arc<Meta>)>>,
}

/// What a CA says of itself in its directory.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    /// Where to ask when to renew (RFC 9773).
    pub(crate) renewal_info: Option<String>,
    /// Its terms of service.
    terms: Option<String>,
    /// Whether accounts have to be bound to others.
    external_account_required: bool,
    /// The profiles that it offers.
    pub(crate) profiles: Vec<String>,
}

impl Session {
    /// Nothing is asked or written yet.
    pub fn new(issuer: Issuer, transport: Transport, challenges: Arc<Challenges>) -> Self {
        let directory = Directory::new(issuer.state_path.clone());
        Self {
            issuer,
            directory,
            challenges,
            dns: std::sync::Mutex::default(),
            client: Client::new(transport),
            turns: Semaphore::new(AT_ONCE),
            account: Mutex::default(),
            key: std::sync::Mutex::default(),
            meta: Mutex::default(),
        }
    }

    /// Goes this way to the CA and into the DNS from now on.
    pub fn work_by(&self, transport: Transport, dns: Option<Arc<dyn Solver>>) {
        self.client.reach_by(transport);
        *self.dns.lock().unwrap_or_else(|poison| poison.into_inner()) = dns;
    }

    /// What writes into the DNS.
    pub(crate) fn dns(&self) -> Option<Arc<dyn Solver>> {
        self.dns.lock().unwrap_or_else(|poison| poison.into_inner()).clone()
    }

    /// What the CA says of itself.
    pub(crate) async fn meta(&self) -> Result<Arc<Meta>, Failure> {
        let mut meta = self.meta.lock().await;
        if let Some((at, meta)) = &*meta
            && at.elapsed() < META_LIFE
        {
            return Ok(Arc::clone(meta));
        }
        let (directory, _) = self.client.get(&self.issuer.uri).await?;
        let read = Arc::new(Meta::read(&directory));
        *meta = Some((Instant::now(), Arc::clone(&read)));
        Ok(read)
    }

    /// The account, which is found by its key or made.
    pub(crate) async fn account(&self) -> Result<Account, Failure> {
        let mut account = self.account.lock().await;
        if let Some(account) = &*account {
            return Ok(account.clone());
        }
        let meta = self.meta().await?;
        let found = self.open_account(&meta).await;
        let found = found.map_err(|failure| self.explain(failure, &meta))?;
        // Only people read it, and the CA knows it.
        let _ = self.directory.write_account_url(found.id());
        Ok(account.insert(found).clone())
    }

    /// Looks for the account anew the next time.
    pub(crate) async fn forget_account(&self) {
        let _: Option<Account> = self.lock_account().await.take();
    }

    async fn lock_account(&self) -> MutexGuard<'_, Option<Account>> {
        self.account.lock().await
    }

    async fn open_account(&self, meta: &Meta) -> Result<Account, Failure> {
        if meta.external_account_required && self.issuer.external_account.is_none() {
            let kind = "externalAccountRequired".to_owned();
            return Err(Failure { kind, ..Failure::request("external account key required") });
        }
        let given = self.issuer.account_key.clone();
        // One process makes an account, and the others find its key.
        let _lock = match &given {
            Some(_) => None,
            None => Some(self.lock_account_key().await?),
        };
        let kept = match &given {
            Some(given) => Some(given.clone()),
            None => self.kept_key()?,
        };
        if let Some(key) = &kept {
            let found = self.builder().from_key(pair(key)?, self.issuer.uri.clone()).await;
            match found.map_err(Failure::from) {
                Ok((account, _)) => return Ok(account),
                Err(failure) if failure.kind == "accountDoesNotExist" => {}
                Err(failure) => return Err(failure),
            }
        }
        let can_be_registered = self.issuer.external_account.is_none() && self.issuer.accept_terms;
        match kept {
            // Of another CA, perhaps, which still knows it.
            Some(key) if can_be_registered => self.register_given(&key).await,
            // The library registers such a key only like this.
            Some(_) if given.is_some() => Err(Failure::request(
                "there is no account for this key, and one can only be registered if the terms of \
                 service are accepted and no external account is used",
            )),
            _ => self.register().await,
        }
    }

    /// The right to make the account, which no process has for long.
    async fn lock_account_key(&self) -> Result<Lock, Failure> {
        let deadline = Instant::now() + REGISTERING;
        loop {
            if let Some(lock) = self.directory.lock("account") {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                let why = self.directory.lock_problem("account");
                let why =
                    why.unwrap_or_else(|| "another process is registering the account".to_owned());
                return Err(Failure::way(why));
            }
            sleep(PAUSE).await;
        }
    }

    /// Registers a key that there is already.
    async fn register_given(&self, key: &AccountKey) -> Result<Account, Failure> {
        let made = self.builder().create_from_key(pair(key)?, self.issuer.uri.clone()).await;
        let (account, _) = made?;
        if !self.issuer.contacts.is_empty() {
            let contacts: Vec<_> = self.issuer.contacts.iter().map(String::as_str).collect();
            account.update_contacts(&contacts).await?;
        }
        Ok(account)
    }

    /// Makes a key and registers it.
    async fn register(&self) -> Result<Account, Failure> {
        let contacts: Vec<_> = self.issuer.contacts.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: self.issuer.accept_terms,
            only_return_existing: false,
        };
        let external = self.issuer.external_account.as_ref();
        let external =
            external.map(|external| ExternalAccountKey::new(external.id.clone(), &external.key));
        let uri = self.issuer.uri.clone();
        let made = self.builder().create(&wanted, uri, external.as_ref()).await;
        let (account, credentials) = made?;
        self.keep_key(AccountKey::from_pkcs8(credentials.private_key().secret_pkcs8_der()));
        Ok(account)
    }

    fn builder(&self) -> instant_acme::AccountBuilder {
        Account::builder_with_http(Box::new(self.client.clone()))
    }

    /// The key that we have made before.
    fn kept_key(&self) -> Result<Option<AccountKey>, Failure> {
        if let Some(key) = self.key.lock().unwrap_or_else(|poison| poison.into_inner()).clone() {
            return Ok(Some(key));
        }
        // One that is there and cannot be read must not be lost to a new account.
        let pem = self.directory.account_key().map_err(Failure::request)?;
        let key = pem.map(|pem| AccountKey::from_pem(pem.as_bytes())).transpose();
        key.map_err(|error| Failure::request(format!("account.key: {error}")))
    }

    /// Keeps the key on disk, and in memory in case that cannot be.
    fn keep_key(&self, key: AccountKey) {
        // The certificate will not be written either then, which is told.
        let _ = self.directory.write_account_key(&key.pem());
        *self.key.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(key);
    }

    /// Names the terms of service where they may be what is missing.
    fn explain(&self, mut failure: Failure, meta: &Meta) -> Failure {
        if let Some(terms) = meta.terms.as_ref().filter(|_| !self.issuer.accept_terms)
            && failure.blame == crate::schedule::Blame::Request
            && failure.kind != "externalAccountRequired"
        {
            failure.text.push_str(&format!(" (terms of service: {terms})"));
            failure.kind = "agreementRequired".to_owned();
        }
        failure.while_doing("creating account")
    }
}

impl Meta {
    fn read(directory: &Value) -> Self {
        let meta = &directory["meta"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let profiles = meta["profiles"].as_object();
        Self {
            renewal_info: text(&directory["renewalInfo"]),
            terms: text(&meta["termsOfService"]),
            external_account_required: meta["externalAccountRequired"] == true,
            profiles: profiles
                .map(|profiles| profiles.keys().cloned().collect())
                .unwrap_or_default(),
        }
    }
}

/// The key as the library takes it.
fn pair(key: &AccountKey) -> Result<(Key, PrivateKeyDer<'static>), Failure> {
    key.pair().ok_or_else(|| Failure::request("the account key cannot be used"))
}
