//! Tokens into a tree.
//!
//! Open parentheses are kept on a stack of our own, so the depth of the input costs heap and not
//! the thread's stack.

use super::SelectorError;
use super::expr::{self, Expr};
use super::token::{EXPECTED_OPERATOR, Problem, Token, Tokens};

/// No selector of [`super::MAX_LENGTH`] can nest deeper.
const MAX_NESTING: usize = super::MAX_LENGTH / 2;

/// Far beyond what an object may hold.
const MAX_TEXT: usize = 64 * super::MAX_LENGTH;

pub(super) fn parse(text: &str) -> Result<Expr, SelectorError> {
    let parsed = if text.len() > MAX_TEXT {
        Err(Problem {
            at: 0,
            message: format!("{} bytes; the longest selector is {}", text.len(), super::MAX_LENGTH),
        })
    } else {
        Parser { tokens: Tokens::new(text), open: Vec::new() }.run()
    };
    parsed.map_err(|p| SelectorError { at: text[..p.at].chars().count() + 1, message: p.message })
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    open: Vec<Group>,
}

/// An expression that is still being read: the whole text, or what one parenthesis encloses.
#[derive(Default)]
struct Group {
    /// Of the parenthesis as a whole.
    negated: bool,
    /// Finished operands of `||`.
    or: Vec<Expr>,
    /// Finished operands of `&&` since the last `||`.
    and: Vec<Expr>,
}

impl Group {
    fn end_and(&mut self) {
        let and = std::mem::take(&mut self.and);
        self.or.push(one_or(and, Expr::And));
    }

    fn finish(mut self) -> Expr {
        self.end_and();
        negate(self.negated, one_or(self.or, Expr::Or))
    }
}

fn one_or(mut terms: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    if terms.len() == 1 { terms.remove(0) } else { join(terms) }
}

fn negate(negated: bool, e: Expr) -> Expr {
    if negated { Expr::Not(Box::new(e)) } else { e }
}

impl Parser<'_> {
    fn run(mut self) -> Result<Expr, Problem> {
        let mut group = Group::default();
        let mut next = self.tokens.next()?;
        if next.1 == Token::End {
            return Ok(Expr::All);
        }
        loop {
            // An operand: any number of `!`, then a test or an opening parenthesis.
            let mut negated = false;
            while next.1 == Token::Not {
                negated = !negated;
                next = self.tokens.next()?;
            }
            if next.1 == Token::OpenParen {
                if self.open.len() == MAX_NESTING {
                    return Err(Problem {
                        at: next.0,
                        message: format!(
                            "parentheses nested deeper than {MAX_NESTING}; simplify the selector"
                        ),
                    });
                }
                self.open.push(std::mem::replace(&mut group, Group { negated, ..Group::default() }));
                next = self.tokens.next()?;
                continue;
            }
            group.and.push(negate(negated, self.test(next)?));

            // What may follow an operand, closing as many parentheses as there are.
            loop {
                let (at, token) = self.tokens.next()?;
                match token {
                    Token::And => break,
                    Token::Or => {
                        group.end_and();
                        break;
                    }
                    Token::CloseParen => match self.open.pop() {
                        Some(outer) => {
                            let inner = std::mem::replace(&mut group, outer);
                            group.and.push(inner.finish());
                        }
                        None => {
                            return Err(Problem { at, message: "')' without its '('; remove it".to_owned() });
                        }
                    },
                    Token::End if self.open.is_empty() => return Ok(group.finish()),
                    Token::End => {
                        return Err(Problem { at, message: "a '(' is never closed; add ')'".to_owned() });
                    }
                    _ => {
                        return Err(Problem {
                            at,
                            message: "two expressions side by side; join them with && or ||".to_owned(),
                        });
                    }
                }
            }
            next = self.tokens.next()?;
        }
    }

    fn test(&mut self, (at, token): (usize, Token<'_>)) -> Result<Expr, Problem> {
        let label: Box<str> = match token {
            Token::All => return Ok(Expr::All),
            Token::Global => return Ok(Expr::Global),
            Token::Has(label) => return Ok(Expr::Has(label.into())),
            Token::Label(label) => label.into(),
            Token::End => {
                return Err(Problem {
                    at,
                    message: "the selector ends where an expression should follow".to_owned(),
                });
            }
            _ => {
                return Err(Problem {
                    at,
                    message: "expected an expression: a label and a test, has(label), all() or '('"
                        .to_owned(),
                });
            }
        };
        let (at, operator) = self.tokens.next()?;
        Ok(match operator {
            Token::Equals => Expr::Equals(label, self.string()?),
            Token::NotEquals => Expr::NotEquals(label, self.string()?),
            Token::Contains => Expr::Contains(label, self.string()?),
            Token::StartsWith => Expr::StartsWith(label, self.string()?),
            Token::EndsWith => Expr::EndsWith(label, self.string()?),
            Token::In => Expr::In(label, self.set()?),
            Token::NotIn => Expr::NotIn(label, self.set()?),
            _ => return Err(Problem { at, message: EXPECTED_OPERATOR.to_owned() }),
        })
    }

    fn string(&mut self) -> Result<Box<str>, Problem> {
        match self.tokens.next()? {
            (_, Token::String(value)) => Ok(value.into()),
            (at, _) => Err(Problem { at, message: "expected a value in quotes, as in \"web\"".to_owned() }),
        }
    }

    fn set(&mut self) -> Result<Box<[Box<str>]>, Problem> {
        let (at, open) = self.tokens.next()?;
        if open != Token::OpenBrace {
            return Err(Problem { at, message: "expected a set, as in {\"a\", \"b\"}".to_owned() });
        }
        let mut values = Vec::new();
        let mut next = self.tokens.next()?;
        while let Token::String(value) = next.1 {
            values.push(value);
            next = self.tokens.next()?;
            if next.1 != Token::Comma {
                break;
            }
            next = self.tokens.next()?;
        }
        match next {
            (_, Token::CloseBrace) => Ok(expr::set(values.into_iter())),
            (at, _) => Err(Problem {
                at,
                message: "expected '}', or a comma and another value in quotes".to_owned(),
            }),
        }
    }
}
