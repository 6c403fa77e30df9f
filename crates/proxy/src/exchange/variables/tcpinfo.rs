//! `$tcpinfo_*`: what the kernel measures of the client's connection.

use bytes::Bytes;
use wssgate_config::variable::Builtin;

use crate::exchange::request::ConnectionInfo;

/// The value of one of them; `None` for Unix sockets and when the socket has left.
pub(super) fn value(connection: &ConnectionInfo, variable: Builtin) -> Option<Bytes> {
    let info = connection.tcp_info()?;
    let value = match variable {
        Builtin::TcpinfoRcvSpace => info.rcv_space,
        Builtin::TcpinfoRtt => info.rtt_us,
        Builtin::TcpinfoRttvar => info.rttvar_us,
        Builtin::TcpinfoSndCwnd => info.snd_cwnd,
        _ => return None,
    };
    Some(value.to_string().into())
}

/// Whether it is one of them.
pub(super) fn is_measured(variable: Builtin) -> bool {
    use Builtin as B;
    matches!(variable, B::TcpinfoRcvSpace | B::TcpinfoRtt | B::TcpinfoRttvar | B::TcpinfoSndCwnd)
}
