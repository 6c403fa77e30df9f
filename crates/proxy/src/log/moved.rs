//! Places of lines as other processes of ours know them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use wssgate_config::model::{LogTarget, Syslog};

use crate::portable::AddressState;

/// A place of lines; one without any field is standard error. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct TargetState<'b> {
    /// The path of a file.
    #[b(0)]
    file: Option<&'b ByteSlice>,
    #[b(1)]
    syslog: Option<SyslogState<'b>>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct SyslogState<'b> {
    #[b(0)]
    server: AddressState<'b>,
    #[n(1)]
    facility: u8,
    #[n(2)]
    severity: u8,
    #[b(3)]
    tag: &'b str,
    #[n(4)]
    #[cbor(default)]
    nohostname: bool,
}

impl<'b> From<&'b LogTarget> for TargetState<'b> {
    fn from(target: &'b LogTarget) -> Self {
        match target {
            LogTarget::File(path) => {
                Self { file: Some(path.as_os_str().as_bytes().into()), syslog: None }
            }
            LogTarget::Stderr => Self { file: None, syslog: None },
            LogTarget::Syslog(syslog) => Self {
                file: None,
                syslog: Some(SyslogState {
                    server: (&syslog.server).into(),
                    facility: syslog.facility,
                    severity: syslog.severity,
                    tag: &syslog.tag,
                    nohostname: syslog.nohostname,
                }),
            },
        }
    }
}

impl TargetState<'_> {
    /// Whether it is this place.
    pub(crate) fn is(&self, target: &LogTarget) -> bool {
        match (target, &self.file, &self.syslog) {
            (LogTarget::File(path), Some(file), _) => path.as_os_str().as_bytes() == &***file,
            (LogTarget::Stderr, None, None) => true,
            (LogTarget::Syslog(known), None, Some(syslog)) => {
                syslog.syslog().is_some_and(|syslog| syslog == *known)
            }
            _ => false,
        }
    }

    /// The place, if it is one.
    pub(crate) fn target(&self) -> Option<LogTarget> {
        Some(match (&self.file, &self.syslog) {
            (Some(file), _) => LogTarget::File(OsStr::from_bytes(file).into()),
            (None, Some(syslog)) => LogTarget::Syslog(syslog.syslog()?),
            (None, None) => LogTarget::Stderr,
        })
    }
}

impl SyslogState<'_> {
    fn syslog(&self) -> Option<Syslog> {
        Some(Syslog {
            server: self.server.address()?,
            facility: self.facility,
            severity: self.severity,
            tag: self.tag.to_owned(),
            nohostname: self.nohostname,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_config::model::ListenAddr;

    use super::*;

    #[test]
    fn each_place_is_known_again() {
        let syslog = |tag: &str| {
            LogTarget::Syslog(Syslog {
                server: ListenAddr::Unix("/dev/log".into()),
                facility: 23,
                severity: 6,
                tag: tag.to_owned(),
                nohostname: true,
            })
        };
        let places = [
            LogTarget::File("/a.log".into()),
            LogTarget::File("/b.log".into()),
            LogTarget::Stderr,
            syslog("a"),
            syslog("b"),
        ];
        for (one, place) in places.iter().enumerate() {
            let bytes = minicbor::to_vec(TargetState::from(place)).unwrap();
            let state: TargetState<'_> = minicbor::decode(&bytes).unwrap();
            assert_eq!(state.target().as_ref(), Some(place));
            for (other, place) in places.iter().enumerate() {
                assert_eq!(state.is(place), one == other, "{state:?} {place:?}");
            }
        }
    }
}
