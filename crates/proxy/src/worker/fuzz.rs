//! A worker as fuzz targets drive it: it serves the connections that it is given, on the thread of who
//! gives them, and listens to nobody.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use wssgate_config::model::ListenAddr;
use wssgate_relay::{self as relay, Relay, Report};

use crate::front::connection;
use crate::generation::Generation;
use crate::listen::Stream;
use crate::metrics::{Held, Metrics};
use crate::peers::{IdlePool, Shortages};
use crate::site::{Phase, Site};
use crate::tunnel::table::Tunnels;

/// What is left of a worker without its threads and listeners: its relay and its phase.
pub struct LoneWorker {
    current: Arc<ArcSwap<Generation>>,
    metrics: Metrics,
    wanted_phase: watch::Sender<Phase>,
    relay: Relay,
    reports: mpsc::UnboundedReceiver<(u64, Report)>,
    tunnels: Rc<Tunnels>,
}

impl LoneWorker {
    /// A worker of this generation.
    pub fn new(generation: Generation) -> io::Result<Self> {
        let (told, reports) = mpsc::unbounded_channel();
        let on_report = move |ticket, report| {
            let _ = told.send((ticket, report));
        };
        let metrics = Metrics::new(1, Arc::default());
        let counters = Arc::clone(&metrics.worker(0).relay);
        let relay = relay::start("relay", relay::Settings::default(), counters, on_report, |_| {})?;
        let tunnels = Rc::new(Tunnels::new(relay.handle()));
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(generation)),
            metrics,
            wanted_phase: watch::Sender::new(Phase::Serving),
            relay,
            reports,
            tunnels,
        })
    }

    /// Serves a connection that came to the first socket of the configuration, to its end. Nothing
    /// is left of it afterwards but counts and logs.
    pub async fn serve(&mut self, stream: UnixStream) {
        let site = Rc::new(Site {
            id: 0,
            metrics: Arc::clone(self.metrics.worker(0)),
            all_metrics: self.metrics.clone(),
            listeners: watch::channel(Vec::new()).1,
            desk: None,
            current: Arc::clone(&self.current),
            wanted_phase: self.wanted_phase.subscribe(),
            idle_upstreams: IdlePool::new(),
            shortages: Shortages::default(),
            unhealthy: watch::Sender::new(()),
            revocations: Arc::default(),
            live: Rc::default(),
        });
        let (live, relay) = (Rc::clone(&site.live), self.relay.handle());
        let tunnels = Rc::clone(&self.tunnels);
        let generation = self.current.load_full();
        let nobody = ListenAddr::Unix(Default::default());
        let counted = (live.enter(), Held::new(&site.metrics, |counters| &counters.active));
        let stream = Stream::Unix(stream);
        let served = async {
            connection::serve(site, tunnels, generation, 0, stream, nobody, counted).await;
            // A tunnel goes on by itself, once its relay has heard of it.
            relay.wake();
            live.ended().await;
        };
        tokio::pin!(served);
        loop {
            tokio::select! {
                () = &mut served => return,
                Some((ticket, report)) = self.reports.recv() => self.tunnels.tell(ticket, report),
            }
        }
    }
}
