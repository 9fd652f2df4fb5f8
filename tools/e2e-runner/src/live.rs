//! What people see while tests run: which run and for how long, how many passed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kit::{Step, Ui, record::Status, ui};

use crate::parse::{Ended, Observer, event::top};

/// How often the line is renewed.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    asked: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
    running: BTreeMap<String, Running>,
}

/// A test that has begun.
#[derive(Debug)]
struct Running {
    since: Instant,
    /// What it said last.
    line: String,
    /// Whether it waits for its turn.
    waits: bool,
}

/// A line that tells how far the tests are.
pub struct Live {
    state: Arc<Mutex<State>>,
    ui: Ui,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Feeds a [`Live`] from a stream.
pub struct Feed {
    state: Arc<Mutex<State>>,
    ui: Ui,
}

impl Live {
    /// Begins, for so many tests.
    #[must_use]
    pub fn start(ui: &Ui, step: Step, asked: usize) -> Self {
        let state = Arc::new(Mutex::new(State { asked, ..State::default() }));
        let (stop, stopped) = channel();
        let seen = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                if let Ok(state) = seen.lock() {
                    step.set(state.line());
                }
            }
            let end = seen.lock().map(|state| state.totals()).unwrap_or_default();
            step.done(end);
        });
        Self { state, ui: ui.clone(), stop: Some(stop), thread: Some(thread) }
    }

    /// Something to give to a stream.
    #[must_use]
    pub fn feed(&self) -> Feed {
        Feed { state: Arc::clone(&self.state), ui: self.ui.clone() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only shows things.
            let _ = thread.join();
        }
    }
}

impl State {
    fn totals(&self) -> String {
        let done = self.passed + self.failed + self.skipped;
        let mut text = format!("{done} of {}: {} passed", self.asked, self.passed);
        for (number, word) in [(self.failed, "failed"), (self.skipped, "skipped")] {
            if number > 0 {
                text.push_str(&format!(", {number} {word}"));
            }
        }
        text
    }

    fn line(&self) -> String {
        let mut running: Vec<_> = self.running.iter().filter(|(_, test)| !test.waits).collect();
        running.sort_by_key(|(_, test)| test.since);
        let age = |(name, test): &(&String, &Running)| format!("{name} {}", ui::duration(test.since.elapsed()));
        let ages: Vec<_> = running.iter().take(4).map(age).collect();
        let more = if running.len() > 4 { format!(" and {} more", running.len() - 4) } else { String::new() };
        let slowest = running.first().map(|(_, test)| test.line.as_str()).filter(|line| !line.is_empty());
        let slowest = slowest.map(|line| format!(" | {line}")).unwrap_or_default();
        let waiting = self.running.len() - running.len();
        let waiting = if waiting == 0 { String::new() } else { format!("; {waiting} wait for their turn") };
        let running =
            if ages.is_empty() { String::new() } else { format!("; running {}{more}{slowest}", ages.join(", ")) };
        format!("{}{waiting}{running}", self.totals())
    }
}

impl Feed {
    /// Its time begins with its turn.
    fn turn(&self, test: &str, waits: bool) {
        if let Ok(mut state) = self.state.lock()
            && let Some(running) = state.running.get_mut(&short(test))
        {
            (running.waits, running.since) = (waits, Instant::now());
        }
    }
}

impl Observer for Feed {
    fn began(&mut self, test: &str) {
        if top(test) == test
            && let Ok(mut state) = self.state.lock()
        {
            let running = Running { since: Instant::now(), line: String::new(), waits: false };
            state.running.insert(short(test), running);
        }
    }

    fn paused(&mut self, test: &str) {
        self.turn(test, true);
    }

    fn goes_on(&mut self, test: &str) {
        self.turn(test, false);
    }

    fn said(&mut self, test: &str, line: &str) {
        let line = line.trim();
        if !line.is_empty()
            && !line.starts_with("=== ")
            && let Ok(mut state) = self.state.lock()
            && let Some(running) = state.running.get_mut(&short(top(test)))
        {
            running.line = short(line);
        }
    }

    fn ended(&mut self, _package: &str, test: &Ended) {
        if top(&test.name) != &*test.name {
            return;
        }
        if let Ok(mut state) = self.state.lock() {
            state.running.remove(&short(&test.name));
            match test.status {
                Status::Passed | Status::Flaky => state.passed += 1,
                Status::Skipped => state.skipped += 1,
                Status::Failed => state.failed += 1,
                // It may run yet.
                Status::NotRun => {}
            }
        }
        let (colour, word) = match test.status {
            Status::Passed | Status::Flaky => ("32", "pass"),
            Status::Skipped => ("33", "skip"),
            Status::Failed => ("31", "FAIL"),
            Status::NotRun => ("31", "cut "),
        };
        let why = test.failure.as_ref().map(|why| format!(" [{}]", why.cause)).unwrap_or_default();
        self.ui.note(format!("{} {} {:.1} s{why}", self.ui.paint(colour, word), short(&test.name), test.seconds));
    }
}

fn short(text: &str) -> String {
    ui::printable(&text.chars().take(100).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_turn_has_no_age() {
        let state = State { asked: 3, ..State::default() };
        let mut feed = Feed { state: Arc::new(Mutex::new(state)), ui: Ui::silent() };
        ["TestA", "TestB", "TestC"].iter().for_each(|test| feed.began(test));
        feed.paused("TestA");
        feed.paused("TestB");
        feed.said("TestA", "words");
        let line = |feed: &Feed| feed.state.lock().unwrap().line();
        assert_eq!(line(&feed).split(" running ").next(), Some("0 of 3: 0 passed; 2 wait for their turn;"));
        assert!(line(&feed).contains("running TestC ") && !line(&feed).contains("TestA"), "{}", line(&feed));
        feed.goes_on("TestA");
        assert!(line(&feed).contains("; 1 wait for their turn; running TestC"), "{}", line(&feed));
        assert!(line(&feed).contains("TestA 0"), "{}", line(&feed));
    }
}
