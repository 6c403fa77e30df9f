//! What an `acme_issuer` block means, with what is in the files that it names.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use wssgate_acme::{
    AccountKey, Addresses, BadAccountKey, ChallengeKind, ExternalAccount, Issuer, Profile, Resolve,
    Transport,
};
use wssgate_config::model::{AcmeChallenge, AcmeExternalAccount, AcmeExternalKey, AcmeIssuer};
use wssgate_dns::Name;
use wssgate_syntax::{Diagnostic, Report, Span};
use zeroize::Zeroizing;

use super::Settings;
use crate::resolve::Resolver;
use crate::tls::ca;

/// Reads an issuer. `None` when it cannot be used; the report then has an error.
pub(super) fn read(
    model: &AcmeIssuer,
    resolvers: &[Arc<Resolver>],
    report: &mut Report,
) -> Option<Settings> {
    let mut read =
        |result: Result<_, Diagnostic>| result.map_err(|problem| report.push(problem)).ok();
    let account_key = model.account_key.as_ref();
    let account_key = account_key.map(|file| read(account_key_of(&file.value, file.span)));
    let external = model.external_account.as_ref().map(external_account);
    let external_account =
        external.map(|result| result.map_err(|problem| report.push(problem)).ok());
    let dns = model.dns.as_ref().map(|dns| super::dns::solver(dns));
    let dns = dns.map(|result| result.map_err(|problem| report.push(problem)).ok());
    let tls = ca::client(model.trusted_certificate.as_ref(), model.verify, report);
    if report.has_errors() {
        return None;
    }
    let issuer = Issuer {
        name: model.name.value.to_string(),
        uri: model.uri.to_string(),
        account_key: account_key.flatten(),
        contacts: model.contacts.iter().map(ToString::to_string).collect(),
        challenge: match model.challenge {
            AcmeChallenge::Http01 => ChallengeKind::Http01,
            AcmeChallenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
            AcmeChallenge::Dns01 => ChallengeKind::Dns01,
        },
        common_name: model.common_name,
        external_account: external_account.flatten(),
        preferred_chain: model.preferred_chain.as_deref().map(str::to_owned),
        profile: model
            .profile
            .as_ref()
            .map(|(name, required)| Profile { name: name.to_string(), required: *required }),
        accept_terms: model.accept_terms,
        state_path: model.state_path.clone(),
    };
    let resolver = model.resolver.map(|id| Arc::clone(&resolvers[id.0]));
    let transport = Transport {
        tls: Arc::new(tls?),
        resolve: resolve(resolver, model.resolver_timeout),
        user_agent: concat!("wssgate/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    Some(Settings { issuer, transport, dns: dns.flatten() })
}

fn account_key_of(path: &Path, span: Span) -> Result<AccountKey, Diagnostic> {
    let fail = |why: &str| {
        let text = format!("cannot load account key \"{}\": {why}", path.display());
        Diagnostic::error(text).at(span, "needed here")
    };
    let text = fs::read(path).map_err(|error| fail(&format!("({})", crate::errno_text(&error))))?;
    let text = Zeroizing::new(text);
    AccountKey::from_pem(&text).map_err(|why| match why {
        BadAccountKey::Missing => {
            let help = "the file must hold a PEM block `PRIVATE KEY` or `EC PRIVATE KEY`: openssl genpkey \
                        -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
            fail(&why.to_string()).help(help)
        }
        BadAccountKey::Damaged | BadAccountKey::Unsupported => fail(&why.to_string()),
    })
}

fn external_account(model: &AcmeExternalAccount) -> Result<ExternalAccount, Diagnostic> {
    let fail = |text: String| Diagnostic::error(text).at(model.span, "");
    let text = match &model.key {
        AcmeExternalKey::Data(data) => Zeroizing::new(data.to_vec()),
        AcmeExternalKey::File(path) => Zeroizing::new(fs::read(path).map_err(|error| {
            let (path, error) = (path.display(), crate::errno_text(&error));
            fail(format!("cannot load external account key \"{path}\": ({error})"))
        })?),
    };
    let text = text.trim_ascii();
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |at| at + 1);
    let key = BASE64_URL_SAFE_NO_PAD.decode(&text[..end]).map_err(|_| {
        let text = "\"external_account_key\" directive invalid base64url encoded value";
        fail(text.to_owned())
    })?;
    Ok(ExternalAccount { id: model.id.to_string(), key: Zeroizing::new(key) })
}

/// How the name of a CA becomes addresses: by `resolver`, or as the system does it.
fn resolve(resolver: Option<Arc<Resolver>>, patience: Duration) -> Resolve {
    Arc::new(move |host: String, port: u16| -> Addresses {
        let resolver = resolver.clone();
        Box::pin(async move {
            if let Ok(address) = host.parse() {
                return Ok(vec![SocketAddr::new(address, port)]);
            }
            let failed = |why: String| format!("could not be resolved ({why})");
            let Some(resolver) = resolver else {
                let found = tokio::net::lookup_host((host, port)).await;
                return found.map(Iterator::collect).map_err(|error| failed(error.to_string()));
            };
            let name = Name::new(host.as_bytes()).map_err(|error| failed(error.to_string()))?;
            let answer = resolver.host(name, patience).await;
            let answer = answer.map_err(|error| failed(error.to_string()))?;
            let addresses = answer.host_addresses().iter();
            Ok(addresses.map(|address| SocketAddr::new(*address, port)).collect())
        })
    })
}
