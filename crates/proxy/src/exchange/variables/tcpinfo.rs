//! `$tcpinfo_*`: what the kernel measures of the client's connection.

use bytes::Bytes;
use wssgate_config::variable::Builtin;
use wssgate_sys::socket::TcpInfo;

use crate::exchange::request::ConnectionInfo;

/// The value of one of them; `None` for Unix sockets and when the socket has left.
pub(super) fn value(connection: &ConnectionInfo, variable: Builtin) -> Option<Bytes> {
    let field = field(variable)?;
    Some(field(&connection.tcp_info()?).to_string().into())
}

/// Whether it is one of them.
pub(super) fn is_measured(variable: Builtin) -> bool {
    field(variable).is_some()
}

/// Which field of the kernel's answer it shows.
fn field(variable: Builtin) -> Option<fn(&TcpInfo) -> u32> {
    Some(match variable {
        Builtin::TcpinfoRcvSpace => |info| info.rcv_space,
        Builtin::TcpinfoRtt => |info| info.rtt_us,
        Builtin::TcpinfoRttvar => |info| info.rttvar_us,
        Builtin::TcpinfoSndCwnd => |info| info.snd_cwnd,
        _ => return None,
    })
}
