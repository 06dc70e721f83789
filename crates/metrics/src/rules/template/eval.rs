//! Running a template.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::parse::{Command, Piece, Pipeline, Set, Start, Word};
use super::value::Value;
use super::{Ask, OUTPUT_BYTES_MAX, Scene, pairs};

/// Pieces and calls of one expansion: nested loops over answers must not hold up every other rule.
const STEPS_MAX: usize = 100_000;

pub(super) struct Runner<'a, 'b> {
    pub ask: &'a mut Ask<'b>,
    pub scene: &'a Scene<'a>,
    out: String,
    steps: usize,
    variables: Vec<(String, Value)>,
}

/// Why a list of pieces ended before its end.
enum Jump {
    Break,
    Continue,
}

type Flow = ControlFlow<Jump>;

pub(super) fn run(body: &[Piece], scene: &Scene<'_>, ask: &mut Ask<'_>) -> Result<String, String> {
    let external: BTreeMap<String, Value> = scene
        .external_labels
        .iter()
        .map(|(name, value)| (name.clone(), Value::text(value.as_str())))
        .collect();
    let parts = [
        pairs(scene.labels),
        Value::Map(Arc::new(external)),
        Value::text(scene.external_url),
        Value::Float(scene.value),
    ];
    let names = ["$labels", "$externalLabels", "$externalURL", "$value"];
    let mut variables: Vec<(String, Value)> =
        names.iter().map(|name| (*name).to_owned()).zip(parts.iter().cloned()).collect();
    let root = Value::Root(Arc::new(parts));
    variables.push(("$".to_owned(), root.clone()));
    let mut runner = Runner { ask, scene, out: String::new(), steps: 0, variables };
    // A `break` outside of a loop was refused when the template was read.
    let _ = runner.pieces(body, &root)?;
    Ok(runner.out)
}

impl Runner<'_, '_> {
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!("more than {STEPS_MAX} steps"));
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        if self.out.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(format!("longer than {OUTPUT_BYTES_MAX} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn pieces(&mut self, pieces: &[Piece], dot: &Value) -> Result<Flow, String> {
        for piece in pieces {
            self.step()?;
            let visible = self.variables.len();
            let flow = match piece {
                Piece::Text(text) => {
                    self.write(text)?;
                    ControlFlow::Continue(())
                }
                Piece::Show(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.set == Set::Nothing {
                        let text = value.show();
                        // Go's templates write nothing as words of their own.
                        self.write(if matches!(value, Value::Nil) { "<no value>" } else { &text })?;
                    }
                    // What is declared here stays visible to the end of the block.
                    continue;
                }
                Piece::If { test, then, otherwise } => {
                    let holds = self.pipeline(test, dot)?.holds();
                    self.pieces(if holds { then } else { otherwise }, dot)?
                }
                Piece::With { value, then, otherwise } => {
                    let value = self.pipeline(value, dot)?;
                    if value.holds() { self.pieces(then, &value)? } else { self.pieces(otherwise, dot)? }
                }
                Piece::Range { list, each, otherwise } => self.range(list, each, otherwise, dot)?,
                Piece::Break => ControlFlow::Break(Jump::Break),
                Piece::Continue => ControlFlow::Break(Jump::Continue),
            };
            self.variables.truncate(visible);
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn range(
        &mut self,
        list: &Pipeline,
        each: &[Piece],
        otherwise: &[Piece],
        dot: &Value,
    ) -> Result<Flow, String> {
        let value = self.commands(list, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::List(list) => {
                let keys = (0..).map(Value::Int);
                keys.zip(list.iter().cloned()).collect()
            }
            Value::Labels(labels) => {
                labels.iter().map(|(name, value)| (Value::text(name), Value::text(value))).collect()
            }
            Value::Map(map) => {
                map.iter().map(|(key, value)| (Value::text(key.as_str()), value.clone())).collect()
            }
            Value::Int(count) => {
                let most = i64::try_from(STEPS_MAX).unwrap_or(i64::MAX);
                (0..(*count).min(most)).map(|number| (Value::Int(number), Value::Int(number))).collect()
            }
            Value::Nil => Vec::new(),
            Value::Bool(_) | Value::Float(_) | Value::Text(_) | Value::Sample(..) | Value::Root(_) => {
                return Err(at(&list.text, &format!("range can't iterate over {}", value.show())));
            }
        };
        if items.is_empty() {
            return self.pieces(otherwise, dot);
        }
        for (key, item) in items {
            self.step()?;
            let visible = self.variables.len();
            let values: Vec<Value> =
                if list.names.len() == 2 { vec![key, item.clone()] } else { vec![item.clone()] };
            for (name, value) in list.names.iter().zip(values) {
                self.set(list.set, name, value);
            }
            let flow = self.pieces(each, &item)?;
            self.variables.truncate(visible);
            if matches!(flow, ControlFlow::Break(Jump::Break)) {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn set(&mut self, set: Set, name: &str, value: Value) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match (set, known) {
            (Set::Assign, Some(known)) => known.1 = value,
            (Set::Assign, None) | (Set::Declare | Set::Nothing, _) => {
                self.variables.push((name.to_owned(), value))
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.names {
            self.set(pipeline.set, name, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        Ok(value.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &Command, piped: Option<Value>, dot: &Value) -> Result<Value, String> {
        self.step()?;
        let Some((first, rest)) = command.words.split_first() else { return Ok(Value::Nil) };
        let Word::Function(function) = first else {
            return self.word(first, dot).map_err(|why| at(&command.text, &why));
        };
        let mut args = Vec::with_capacity(rest.len() + 1);
        for word in rest {
            let value = self.word(word, dot).map_err(|why| at(&command.text, &why))?;
            // `and` and `or` look no further than they must.
            let decided =
                (function.name == "and" && !value.holds()) || (function.name == "or" && value.holds());
            if decided {
                return Ok(value);
            }
            args.push(value);
        }
        args.extend(piped);
        self.call(function, &args).map_err(|why| at(&command.text, &why))
    }

    fn call(&mut self, function: &super::functions::Function, args: &[Value]) -> Result<Value, String> {
        let (least, most) = function.args;
        if args.len() < least || args.len() > most {
            let want = if most == usize::MAX { format!("at least {least}") } else { least.to_string() };
            return Err(format!(
                "wrong number of args for {}: want {want} got {}",
                function.name,
                args.len()
            ));
        }
        (function.run)(self, args).map_err(|why| format!("error calling {}: {why}", function.name))
    }

    fn word(&mut self, word: &Word, dot: &Value) -> Result<Value, String> {
        let (start, fields) = match word {
            Word::Nil => return Ok(Value::Nil),
            Word::Bool(truth) => return Ok(Value::Bool(*truth)),
            Word::Int(number) => return Ok(Value::Int(*number)),
            Word::Float(number) => return Ok(Value::Float(*number)),
            Word::Text(text) => return Ok(Value::text(text.as_str())),
            Word::Function(function) => return self.call(function, &[]),
            Word::Path(start, fields) => (start, fields),
        };
        let mut value = match start {
            Start::Dot => dot.clone(),
            Start::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map_or(Value::Nil, |(_, value)| value.clone())
            }
            Start::Paren(pipeline) => self.pipeline(pipeline, dot)?,
        };
        for field in fields {
            value = value.field(field)?;
        }
        Ok(value)
    }
}

/// Says where, once: the innermost place is the one that helps.
fn at(text: &str, why: &str) -> String {
    if why.starts_with("at <") { why.to_owned() } else { format!("at <{text}>: {why}") }
}
