//! An answer that somebody else has fetched (`ssl_stapling_file`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::time::sleep;
use wssgate_config::model::LogLevel;
use wssgate_x509::ocsp::{Good, Subject, Unfit, is_response};

use crate::clock::unix_seconds as now;
use crate::resolve::ResolverThread;
use crate::tls::certificates::Contents;
use crate::tls::served::Served;

/// The clock may be set: it is looked at this often at least, in seconds.
const LOOK: i64 = 3600;

/// A certificate with which such an answer is shown.
#[derive(Clone, Debug)]
pub(in crate::tls) struct Filed {
    served: Arc<Served>,
    of: Arc<CertifiedKey>,
    /// What it is shown until, in seconds since the Unix epoch.
    until: i64,
    path: Arc<str>,
    file: Arc<Path>,
}

/// Reads the file.
pub(super) fn read(path: &Path, contents: &Contents) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let failed = |why: &str| format!("cannot load OCSP response \"{shown}\": {why}");
    let der = contents.of(path).map_err(|why| failed(&why))?;
    match is_response(&der) {
        true => Ok(der.to_vec()),
        false => Err(failed("d2i_OCSP_RESPONSE_bio() failed")),
    }
}

impl Filed {
    /// Shows the answer with the certificate in `path`.
    ///
    /// # Errors
    /// When no client would believe it.
    pub(super) fn build(
        (served, path): (&Arc<Served>, &str),
        file: &Path,
        answer: &[u8],
        subject: &Subject,
    ) -> Result<Self, String> {
        let until = match subject.judge(answer, false) {
            // As in nginx, also a bad word: whoever put it there knows what it says.
            Ok(Good { until }) | Err(Unfit::Revoked(until) | Unfit::Unknown(until)) => until,
            Err(Unfit::OtherCertificate) => {
                return Err(format!("the response in the file is not about \"{path}\""));
            }
            Err(Unfit::OutOfDate) => {
                return Err(format!("the response about \"{path}\" in the file is out of date"));
            }
            Err(unfit) => {
                return Err(format!("the response about \"{path}\" in the file: {unfit}"));
            }
        };
        let of = served.bare();
        served.staple(&of, answer, until);
        Ok(Self { served: Arc::clone(served), of, until, path: path.into(), file: file.into() })
    }

    /// Tells when it is shown no longer.
    pub(super) async fn run(self, thread: &ResolverThread) {
        let (path, file) = (&self.path, self.file.display());
        loop {
            if !Arc::ptr_eq(&self.of, &self.served.bare()) {
                let text = format_args!(
                    "certificate \"{path}\" has changed: the OCSP response in \"{file}\" is about \
                     the previous one and is no longer sent"
                );
                return thread.log(LogLevel::Warn, text);
            }
            let left = self.until - now();
            if left <= 0 {
                let text = format_args!(
                    "the OCSP response in \"{file}\" for the certificate \"{path}\" has expired \
                     and is no longer sent"
                );
                return thread.log(LogLevel::Warn, text);
            }
            tokio::select! {
                () = sleep(Duration::from_secs(left.min(LOOK).unsigned_abs())) => {}
                () = self.served.replaced() => {}
            }
        }
    }
}
