//! One order from beginning to end: names, challenges, request, certificate.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    Identifier as Wanted, NewOrder, Order as Running, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::chain::Chain;
use crate::challenges::Offered;
use crate::failure::{Failure, problem_failure};
use crate::identifier::Identifier;
use crate::issuer::{ChallengeKind, Order};
use crate::keeper::now;
use crate::record::Record;
use crate::resume::{keep, resume};
use crate::schedule::{Blame, Span, renewal_window};
use crate::session::{Meta, Session};

/// How long a CA may take to look at challenges; the DNS takes longer.
const LOOKING: Duration = Duration::from_secs(3 * 60);
const LOOKING_INTO_DNS: Duration = Duration::from_secs(10 * 60);

/// How long a CA may take to make a certificate.
const MAKING: Duration = Duration::from_secs(3 * 60);

/// The shortest and the longest time between two looks at an order that a CA may want.
const SHORTEST_WANTED: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Obtains a certificate, which replaces `old`.
pub(crate) async fn obtain(
    session: &Session,
    order: &Order,
    old: Option<&Chain>,
) -> Result<Chain, Failure> {
    let _turn = session.turns.acquire().await;
    let account = session.account().await?;
    match attempt(session, &account, order, old).await {
        // It was removed, or the CA has lost its memory.
        Err(failure) if failure.kind == "accountDoesNotExist" => {
            session.forget_account().await;
            let account = session.account().await?;
            attempt(session, &account, order, old).await
        }
        result => result,
    }
}

async fn attempt(
    session: &Session,
    account: &Account,
    order: &Order,
    old: Option<&Chain>,
) -> Result<Chain, Failure> {
    let meta = session.meta().await?;
    let profile = profile(session, &meta)?;
    if let Some(left) = resume(session, account, order, profile).await? {
        let chain = fill(session, account, order, left).await?;
        let is_new = old.is_none_or(|old| old.pem != chain.pem);
        // An old one is better than none; it is renewed at once.
        let nothing_serves = old.is_none_or(|old| old.valid.end <= now());
        let Span { end, .. } = chain.valid;
        if is_new && (now() < renewal_window(chain.valid).start || nothing_serves && now() < end) {
            return Ok(chain);
        }
        // Nobody has fetched it in time, or kept it.
        session.directory.forget_pending(&order.id());
    }
    let running = place(account, order, old, &meta, profile).await?;
    let kind = order.key;
    let key = tokio::task::spawn_blocking(move || kind.generate());
    let key = key.await.map_err(|error| Failure::request(error.to_string()))?;
    let key = key.map_err(|error| Failure::request(format!("generating a key failed: {error}")))?;
    keep(session, order, profile, &running, &key);
    fill(session, account, order, (running, key)).await
}

/// Does what the CA wants for an order, and fetches the certificate.
async fn fill(
    session: &Session,
    account: &Account,
    order: &Order,
    (mut running, key): (Running, KeyPair),
) -> Result<Chain, Failure> {
    if running.state().status == OrderStatus::Pending {
        let convinced = convince(session, order, &mut running).await;
        if running.state().status == OrderStatus::Invalid {
            session.directory.forget_pending(&order.id());
        }
        convinced?;
    }
    let request = request(order, &key, session.issuer.common_name).map_err(|error| {
        Failure::request(format!("creating a certificate request failed: {error}"))
    })?;
    let pem = finish(session, account, &mut running, &request).await;
    if pem.as_ref().is_err_and(|failure| !failure.is_passing()) {
        session.directory.forget_pending(&order.id());
    }
    // Its certificate counts, so that the next order must not come as soon as after a lost connection.
    let pem = pem.map_err(|failure| Failure { blame: Blame::Request, ..failure })?;
    let key = Zeroizing::new(key.serialize_pem());
    Chain::new(pem, key)
        .map_err(|error| Failure::request(format!("invalid certificate from the CA: {error}")))
}

/// Asks for a certificate.
async fn place(
    account: &Account,
    order: &Order,
    old: Option<&Chain>,
    meta: &Meta,
    profile: Option<&str>,
) -> Result<Running, Failure> {
    let names: Vec<_> = order.identifiers.iter().map(wanted).collect();
    let plain = || {
        let new = NewOrder::new(&names);
        match profile {
            Some(profile) => new.profile(profile),
            None => new,
        }
    };
    let id = old.and_then(|old| old.renewal_id.as_ref()).filter(|_| meta.renewal_info.is_some());
    if let Some((authority, serial)) = id {
        let id = CertificateIdentifier {
            authority_key_identifier: authority.into(),
            serial: serial.into(),
        };
        match account.new_order(&plain().replaces(id)).await {
            Ok(running) => return Ok(running),
            Err(error) => {
                let failure = Failure::from(error);
                // Of the certificate before, a CA may think what it wants.
                if failure.is_passing() {
                    return Err(failure);
                }
            }
        }
    }
    account.new_order(&plain()).await.map_err(Failure::from)
}

fn wanted(identifier: &Identifier) -> Wanted {
    match identifier {
        Identifier::Dns(name) => Wanted::Dns(name.to_string()),
        Identifier::Ip(address) => Wanted::Ip(*address),
    }
}

/// The profile to ask for.
fn profile<'s>(session: &'s Session, meta: &Meta) -> Result<Option<&'s str>, Failure> {
    let Some(profile) = &session.issuer.profile else { return Ok(None) };
    match meta.profiles.contains(&profile.name) {
        true => Ok(Some(&profile.name)),
        false if profile.required => {
            let (name, offered) = (&profile.name, meta.profiles.join(", "));
            let offered = if offered.is_empty() { "none".to_owned() } else { offered };
            let text =
                format!("the CA does not offer the profile \"{name}\" (it offers: {offered})");
            Err(Failure { kind: "invalidProfile".to_owned(), ..Failure::request(text) })
        }
        false => Ok(None),
    }
}

/// Shows the CA that the names are ours.
async fn convince(session: &Session, order: &Order, running: &mut Running) -> Result<(), Failure> {
    // An answer for http-01 and a record are found beside those of others.
    let taken = match session.issuer.challenge {
        ChallengeKind::TlsAlpn01 => &*order.identifiers,
        ChallengeKind::Http01 | ChallengeKind::Dns01 => &[],
    };
    let _turn = session.challenges.turn(taken).await;
    let mut shown = Shown::default();
    let convinced = match show(session, order, running, &mut shown).await {
        Ok(()) => wait_until_convinced(session, running).await,
        Err(failure) => Err(failure),
    };
    for record in shown.records {
        record.take_away().await;
    }
    convinced
}

/// What is shown to a CA while it looks.
#[derive(Default)]
struct Shown {
    offered: Vec<Offered>,
    records: Vec<Record>,
}

async fn show(
    session: &Session,
    order: &Order,
    running: &mut Running,
    shown: &mut Shown,
) -> Result<(), Failure> {
    let kind = session.issuer.challenge;
    let mut authorizations = running.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(Failure::from)?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => {
                let text = format!("{name}: the authorization is {other:?}");
                return Err(Failure::request(text.to_ascii_lowercase()));
            }
        }
        let offers: Vec<_> =
            authorization.challenges.iter().map(|one| type_name(&one.r#type)).collect();
        let offers = offers.join(", ");
        let wanted = match kind {
            ChallengeKind::Http01 => ChallengeType::Http01,
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
            ChallengeKind::Dns01 => ChallengeType::Dns01,
        };
        let Some(mut challenge) = authorization.challenge(wanted) else {
            let kind = kind.name();
            let text = format!("{name}: the CA does not offer {kind} (it offers: {offers})");
            return Err(Failure { kind: "noChallenge".to_owned(), ..Failure::request(text) });
        };
        let answer = challenge.key_authorization();
        let identifier = match challenge.identifier().identifier {
            Wanted::Ip(address) => Identifier::Ip(*address),
            _ => Identifier::Dns(bare(&name).into()),
        };
        match kind {
            ChallengeKind::Http01 => {
                let offered = session.challenges.offer_answer(&challenge.token, answer.as_str());
                shown.offered.push(offered);
            }
            ChallengeKind::TlsAlpn01 => {
                let digest = answer.digest();
                let made = session.challenges.offer_certificate(&identifier, digest.as_ref());
                shown.offered.push(made.map_err(|error| Failure::request(error.to_string()))?);
            }
            ChallengeKind::Dns01 => {
                let Some(dns) = session.dns() else {
                    return Err(Failure::request("neither \"dns_hook\" nor \"dns_update\" is set"));
                };
                let record = format!("_acme-challenge.{identifier}");
                let value = answer.dns_value();
                let turn = session.challenges.turn_at_record(&record, &value).await;
                // Another process that goes on with the order would write the same record.
                let lock = session.directory.lock(&order.id());
                shown.records.push(Record::new(&dns, &record, &value, (turn, lock)));
                let presented = dns.present(&record, &value).await;
                presented.map_err(|error| Failure {
                    kind: "dnsUpdate".to_owned(),
                    ..Failure::request(format!("{record}: {error}"))
                })?;
            }
        }
        // An earlier try may have said so already, which is not for saying twice.
        if challenge.status == ChallengeStatus::Pending {
            let ready = challenge.set_ready().await;
            ready.map_err(|error| Failure::from(error).while_doing(&name))?;
        }
    }
    Ok(())
}

fn type_name(kind: &ChallengeType) -> String {
    match kind {
        ChallengeType::Http01 => "http-01".to_owned(),
        ChallengeType::Dns01 => "dns-01".to_owned(),
        ChallengeType::TlsAlpn01 => "tls-alpn-01".to_owned(),
        ChallengeType::Unknown(name) => name.clone(),
        other => format!("{other:?}"),
    }
}

/// A name without the `*.` of a wildcard.
fn bare(name: &str) -> &str {
    name.strip_prefix("*.").unwrap_or(name)
}

/// Looks at the order until the CA has looked at all challenges.
async fn wait_until_convinced(session: &Session, running: &mut Running) -> Result<(), Failure> {
    let patience = match session.issuer.challenge {
        ChallengeKind::Dns01 => LOOKING_INTO_DNS,
        _ => LOOKING,
    };
    let mut looks = Looks::new(patience);
    loop {
        let status = running.refresh().await.map_err(Failure::from)?.status;
        match status {
            OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing => return Ok(()),
            OrderStatus::Invalid => return Err(why(running).await),
            OrderStatus::Pending => {
                let wait = session.client.take_retry_after(running.url());
                if !looks.pause(wait).await {
                    let failure = why(running).await;
                    let text = format!("{} (not decided within {patience:?})", failure.text);
                    return Err(Failure { text, ..failure });
                }
            }
        }
    }
}

/// Why an order came to nothing, which only its authorizations know.
async fn why(running: &mut Running) -> Failure {
    let mut found: Option<Failure> = None;
    let error = running.state().error.as_ref().map(problem_failure);
    let mut authorizations = running.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.status != AuthorizationStatus::Invalid
            && authorization.refresh().await.is_err()
        {
            continue;
        }
        let name = authorization.identifier().to_string();
        for challenge in &authorization.challenges {
            let Some(problem) = &challenge.error else { continue };
            let failure = problem_failure(problem).while_doing(&name);
            match &mut found {
                Some(found) => found.text = format!("{}; {}", found.text, failure.text),
                None => found = Some(failure),
            }
        }
    }
    // What is wrong with a name is never the CA's state of health.
    let blame = Blame::Request;
    let failure = found.or(error).unwrap_or_else(|| Failure::request("the CA gives no reason"));
    Failure { blame, ..failure }
}

/// A request for a certificate in DER.
fn request(order: &Order, key: &KeyPair, common_name: bool) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if common_name {
        let is_dns = |identifier: &&Identifier| matches!(identifier, Identifier::Dns(_));
        let first = order.identifiers.iter().find(is_dns).or(order.identifiers.first());
        let name = first.map(ToString::to_string).unwrap_or_default();
        params.distinguished_name.push(DnType::CommonName, name);
    }
    for identifier in &order.identifiers {
        params.subject_alt_names.push(match identifier {
            Identifier::Dns(name) => SanType::DnsName((&**name).try_into()?),
            Identifier::Ip(address) => SanType::IpAddress(*address),
        });
    }
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Requests the certificate, waits for it and fetches it. What is lost on the way is asked for again until time is
/// up: the CA may have issued it.
async fn finish(
    session: &Session,
    account: &Account,
    running: &mut Running,
    request: &[u8],
) -> Result<String, Failure> {
    let mut looks = Looks::new(MAKING);
    let mut hiccup = None;
    let finalizing = |error| Failure::from(error).while_doing("finalizing the order");
    let mut is_lost = false;
    // Otherwise an earlier try has requested it.
    if running.state().status == OrderStatus::Ready {
        let finalized = running.finalize_csr(request).await;
        is_lost = noted(finalized.map_err(finalizing), &mut hiccup)?.is_none();
    }
    loop {
        match running.state().status {
            OrderStatus::Valid => {
                if let Some(pem) = noted(fetch(session, account, running).await, &mut hiccup)? {
                    return Ok(pem);
                }
            }
            OrderStatus::Invalid => return Err(why(running).await),
            _ => {}
        }
        let wait = session.client.take_retry_after(running.url());
        if !looks.pause(wait).await {
            let late =
                || Failure::way(format!("the CA has issued no certificate within {MAKING:?}"));
            return Err(hiccup.unwrap_or_else(late));
        }
        let looked = running.refresh().await.map(|state| state.status);
        let status = noted(looked.map_err(Failure::from), &mut hiccup)?;
        // What was lost was the request then, not its answer.
        if is_lost && status == Some(OrderStatus::Ready) {
            let finalized = running.finalize_csr(request).await;
            is_lost = noted(finalized.map_err(finalizing), &mut hiccup)?.is_none();
        }
    }
}

/// Keeps a failure that says nothing about the order, and hands on others.
fn noted<T>(
    result: Result<T, Failure>,
    hiccup: &mut Option<Failure>,
) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.is_passing() => {
            *hiccup = Some(failure);
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// Fetches the chain, the preferred one if there is one.
async fn fetch(
    session: &Session,
    account: &Account,
    running: &mut Running,
) -> Result<String, Failure> {
    let url = running.state().certificate.clone().unwrap_or_default();
    let pem = running.certificate().await.map_err(Failure::from)?;
    let pem = pem.ok_or_else(|| Failure::way("the CA has sent no certificate"))?;
    let noted = session.client.take_chain(&url).unwrap_or_default();
    let Some(wanted) = &session.issuer.preferred_chain else { return Ok(pem) };
    if Chain::leads_to(&pem, wanted) {
        return Ok(pem);
    }
    for other in &noted.alternates {
        // The library has no request for these. This one asks as well, and only makes nothing of the
        // answer, which our client has noted by then.
        let _: Result<_, Error> = account.order(other.clone()).await;
        match session.client.take_chain(other) {
            Some(chain) if Chain::leads_to(&chain.pem, wanted) => return Ok(chain.pem),
            // One that cannot be had is not worth the one that is there.
            _ => {}
        }
    }
    Ok(pem)
}

/// When to look at an order again.
struct Looks {
    deadline: Instant,
    pause: Duration,
}

impl Looks {
    fn new(patience: Duration) -> Self {
        Self { deadline: Instant::now() + patience, pause: Duration::from_millis(250) }
    }

    /// Waits as long as the CA wants, or a little longer each time; false when time is up.
    async fn pause(&mut self, wanted: Option<Duration>) -> bool {
        let wanted = wanted.map(|wanted| wanted.clamp(SHORTEST_WANTED, LONGEST_PAUSE));
        let pause = wanted.unwrap_or(self.pause);
        self.pause = (self.pause * 2).min(Duration::from_secs(8));
        if Instant::now() + pause > self.deadline {
            return false;
        }
        sleep(pause).await;
        true
    }
}
