//! What was measured, and how it is shown: each figure beside its floor and its peers.

use std::io::{self, Write};

use serde_json::{Value, json};

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reach {
    /// catchword's figure is at most so many times this one.
    Ratio(f64),
    /// The figure itself is at most this.
    Value(f64),
}

/// One figure of one contestant.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The question it answers.
    pub question: &'static str,
    /// The case: how large, how cold.
    pub case: String,
    /// Whose figure it is.
    pub subject: &'static str,
    /// What was measured: the median, the mean, the memory.
    pub measure: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// catchword's figure divided by this one, where that says something.
    pub ratio: Option<f64>,
    /// What must be reached.
    pub reach: Option<Reach>,
}

impl Figure {
    /// Returns whether what must be reached is missed.
    pub fn is_missed(&self) -> bool {
        match self.reach {
            None => false,
            Some(Reach::Ratio(most)) => self.ratio.is_some_and(|ratio| most < ratio),
            Some(Reach::Value(most)) => most < self.value,
        }
    }

    /// Returns the figure as JSON.
    pub fn to_json(&self) -> Value {
        let reach = match self.reach {
            None => Value::Null,
            Some(Reach::Ratio(most)) => json!({ "ratio": most }),
            Some(Reach::Value(most)) => json!({ "value": most }),
        };
        json!({
            "question": self.question, "case": self.case, "subject": self.subject,
            "measure": self.measure, "value": self.value, "unit": self.unit,
            "ratio": self.ratio, "must_reach": reach, "missed": self.is_missed(),
        })
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { case, subject, measure, value, unit, .. } = self;
        write!(out, "  {case:<26} {subject:<22} {measure:<8} {value:>12.1} {unit:<4}")?;
        if let Some(ratio) = self.ratio {
            write!(out, " {ratio:>7.2} x")?;
        }
        match self.reach {
            None => (),
            Some(Reach::Ratio(most)) => write!(out, "  must be <= {most} x")?,
            Some(Reach::Value(most)) => write!(out, "  must be <= {most} {unit}")?,
        }
        writeln!(out, "{}", if self.is_missed() { "  MISSED" } else { "" })
    }
}

/// The figures of one case: the first contestant is catchword, the others are set against it.
#[derive(Debug)]
pub struct Case {
    question: &'static str,
    name: String,
    figures: Vec<Figure>,
}

impl Case {
    /// Begins the figures of a case.
    pub fn new(question: &'static str, case: impl Into<String>) -> Self {
        Self { question, name: case.into(), figures: Vec::new() }
    }

    /// Adds a figure. If catchword has one of the same measure, the new one is set against it.
    #[must_use]
    pub fn with(
        mut self,
        subject: &'static str,
        measure: &'static str,
        value: f64,
        unit: &'static str,
    ) -> Self {
        let ours = self.figures.iter().find(|f| f.measure == measure && f.unit == unit);
        let ratio = ours.filter(|_| 0.0 < value).map(|ours| ours.value / value);
        self.figures.push(Figure {
            question: self.question,
            case: self.name.clone(),
            subject,
            measure,
            value,
            unit,
            ratio,
            reach: None,
        });
        self
    }

    /// Says what the figure added last must reach.
    #[must_use]
    pub fn must(mut self, reach: Reach) -> Self {
        if let Some(last) = self.figures.last_mut() {
            last.reach = Some(reach);
        }
        self
    }

    /// Returns the figures.
    pub fn figures(self) -> Vec<Figure> {
        self.figures
    }
}

/// Writes figures for people.
///
/// # Errors
///
/// What standard output says.
pub fn show(out: &mut impl Write, figures: &[Figure]) -> io::Result<()> {
    let mut question = "";
    for figure in figures {
        if figure.question != question {
            question = figure.question;
            writeln!(out, "\n{question}")?;
        }
        figure.write(out)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_ours_over_theirs_and_missed_when_it_is_too_great() {
        let case = Case::new("q", "c").with("catchword", "p50", 30.0, "us");
        let figures = case.with("floor", "p50", 20.0, "us").must(Reach::Ratio(1.4)).figures();
        assert_eq!(figures[0].ratio, None);
        assert_eq!(figures[1].ratio, Some(1.5));
        assert!(figures[1].is_missed());
        assert!(!Figure { reach: Some(Reach::Ratio(1.5)), ..figures[1].clone() }.is_missed());
        assert!(Figure { reach: Some(Reach::Value(19.0)), ..figures[1].clone() }.is_missed());
    }

    #[test]
    fn figures_of_another_measure_are_not_set_against_each_other() {
        let case = Case::new("q", "c").with("catchword", "p50", 30.0, "us");
        let figures = case.with("floor", "mean", 20.0, "us").figures();
        assert_eq!(figures[1].ratio, None);
    }
}
