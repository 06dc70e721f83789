//! Tells the control plane that a version fails, so that it need not ask all the time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::control::Event;
use crate::series::SeriesBook;

/// From one telling to the next. Who was told asks for the figures, and those of all versions come with the answer; a
/// service that is down must not fill the queue in which a `drained` is waiting.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs until it is aborted. Versions that fail at the same time take turns.
pub(super) async fn tell(series: Arc<SeriesBook>, events: broadcast::Sender<Event>) {
    loop {
        series.failure().await;
        for (service, version) in series.take_failing() {
            // No client connected is fine: it will ask.
            let _ = events.send(Event::Failing { service, version });
            tokio::time::sleep(PAUSE).await;
        }
    }
}
