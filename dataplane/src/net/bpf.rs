//! Programs of the BSD packet filter: which packets somebody asks for, as libpcap says it.
//!
//! The machine is that of McCanne and Jacobson, "The BSD Packet Filter" (USENIX 1993): an accumulator, an index, sixteen words
//! of memory. Jumps lead forward, so each instruction is met once at most. As in libpcap's `bpf_filter`, a load from beyond the
//! packet and a division by zero end a program with no.

use thiserror::Error;

/// One instruction, as libpcap and the kernel write it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to pass over where a comparison is true.
    pub jt: u8,
    /// And where it is false.
    pub jf: u8,
    /// Its number: an offset, a constant, a place in memory.
    pub k: u32,
}

/// A program that was checked, ready to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    ops: Box<[Op]>,
}

/// What is wrong with a program. Instructions are counted from 0, as `tcpdump -d` does.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProgramError {
    /// There is nothing, or too much of it.
    #[error("it has {0} instructions: 1 to {max} may be", max = Program::MAX)]
    Length(usize),
    /// No such instruction.
    #[error("instruction {at} has the code {code:#x}, which is none of the classic packet filter's")]
    Code {
        /// Which one.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// It leads out of the program, or back.
    #[error("instruction {at} leads to {to}, and the program has {len}: jumps lead forward within it")]
    Jump {
        /// Which one.
        at: usize,
        /// Where to.
        to: i64,
        /// Instructions there are.
        len: usize,
    },
    /// No such word.
    #[error("instruction {at} is about word {word} of memory, which has {MEMORY}")]
    Memory {
        /// Which one.
        at: usize,
        /// The word it is about.
        word: u32,
    },
    /// It divides by a zero of its own.
    #[error("instruction {at} divides by zero")]
    Division {
        /// Which one.
        at: usize,
    },
    /// It has no end.
    #[error("the last instruction is no return")]
    End,
}

/// Words of memory.
const MEMORY: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Load(From),
    LoadIndex(From),
    Store(usize),
    StoreIndex(usize),
    Calculate(Calculation, Operand),
    Negate,
    Skip(usize),
    Branch { test: Test, with: Operand, yes: usize, no: usize },
    Return(u32),
    ReturnAccumulator,
    ToIndex,
    FromIndex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Constant(u32),
    Memory(usize),
    Length,
    /// Bytes of the packet, and how many.
    At(u32, usize),
    /// The same, the index farther on.
    Behind(u32, usize),
    /// The length of an IPv4 header that begins there.
    Header(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Constant(u32),
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calculation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Or,
    And,
    Xor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equal,
    Greater,
    AtLeast,
    AnyBit,
}

impl Program {
    /// Instructions at most, as in the kernel.
    pub const MAX: usize = 4096;

    /// Checks a program.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn check(instructions: &[Instruction]) -> Result<Self, ProgramError> {
        let len = instructions.len();
        if !(1..=Self::MAX).contains(&len) {
            return Err(ProgramError::Length(len));
        }
        let ops = instructions.iter().enumerate().map(|(at, instruction)| Op::read(at, instruction, len));
        let ops: Box<[Op]> = ops.collect::<Result<_, _>>()?;
        match ops.last() {
            Some(Op::Return(_) | Op::ReturnAccumulator) => Ok(Self { ops }),
            _ => Err(ProgramError::End),
        }
    }

    /// Whether it is true of a packet of `length` bytes, of which the first are `bytes`.
    pub fn accepts(&self, bytes: &[u8], length: u32) -> bool {
        self.run(bytes, length).is_some_and(|kept| kept != 0)
    }

    /// What it returns; `None`: it was ended.
    fn run(&self, bytes: &[u8], length: u32) -> Option<u32> {
        let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; MEMORY], 0);
        loop {
            let value = |operand| match operand {
                Operand::Constant(constant) => constant,
                Operand::Index => x,
            };
            // The last one returns, and none leads beyond it.
            match self.ops[at] {
                Op::Load(from) => a = from.read(bytes, length, x, &memory)?,
                Op::LoadIndex(from) => x = from.read(bytes, length, x, &memory)?,
                Op::Store(word) => memory[word] = a,
                Op::StoreIndex(word) => memory[word] = x,
                Op::Calculate(calculation, operand) => a = calculation.of(a, value(operand))?,
                Op::Negate => a = a.wrapping_neg(),
                Op::Skip(over) => at += over,
                Op::Branch { test, with, yes, no } => at += if test.is(a, value(with)) { yes } else { no },
                Op::Return(kept) => return Some(kept),
                Op::ReturnAccumulator => return Some(a),
                Op::ToIndex => x = a,
                Op::FromIndex => a = x,
            }
            at += 1;
        }
    }
}

impl Op {
    fn read(at: usize, instruction: &Instruction, len: usize) -> Result<Self, ProgramError> {
        let Instruction { code, jt, jf, k } = *instruction;
        let unknown = ProgramError::Code { at, code };
        let word = || match usize::try_from(k) {
            Ok(word) if word < MEMORY => Ok(word),
            _ => Err(ProgramError::Memory { at, word: k }),
        };
        // libpcap leads back where a packet may have any number of headers (`protochain`): that may never end.
        let over = |distance: i32| match usize::try_from(distance) {
            Ok(over) if at + 1 + over < len => Ok(over),
            _ => Err(ProgramError::Jump { at, to: at as i64 + 1 + i64::from(distance), len }),
        };
        let operand = if code & 0x08 == 0 { Operand::Constant(k) } else { Operand::Index };
        Ok(match code {
            0x00 => Self::Load(From::Constant(k)),
            0x20 => Self::Load(From::At(k, 4)),
            0x28 => Self::Load(From::At(k, 2)),
            0x30 => Self::Load(From::At(k, 1)),
            0x40 => Self::Load(From::Behind(k, 4)),
            0x48 => Self::Load(From::Behind(k, 2)),
            0x50 => Self::Load(From::Behind(k, 1)),
            0x60 => Self::Load(From::Memory(word()?)),
            0x80 => Self::Load(From::Length),
            0x01 => Self::LoadIndex(From::Constant(k)),
            0x61 => Self::LoadIndex(From::Memory(word()?)),
            0x81 => Self::LoadIndex(From::Length),
            0xb1 => Self::LoadIndex(From::Header(k)),
            0x02 => Self::Store(word()?),
            0x03 => Self::StoreIndex(word()?),
            0x84 => Self::Negate,
            0x05 => Self::Skip(over(k.cast_signed())?),
            0x06 => Self::Return(k),
            0x16 => Self::ReturnAccumulator,
            0x07 => Self::ToIndex,
            0x87 => Self::FromIndex,
            _ if code & 0xff07 == 0x04 => {
                let calculation = Calculation::read(code & 0xf0).ok_or(unknown)?;
                let divides = matches!(calculation, Calculation::Divide | Calculation::Remainder);
                if divides && operand == Operand::Constant(0) {
                    return Err(ProgramError::Division { at });
                }
                Self::Calculate(calculation, operand)
            }
            _ if code & 0xff07 == 0x05 => {
                let test = Test::read(code & 0xf0).ok_or(unknown)?;
                Self::Branch { test, with: operand, yes: over(jt.into())?, no: over(jf.into())? }
            }
            _ => return Err(unknown),
        })
    }
}

impl From {
    #[inline]
    fn read(self, bytes: &[u8], length: u32, index: u32, memory: &[u32; MEMORY]) -> Option<u32> {
        match self {
            Self::Constant(constant) => Some(constant),
            Self::Memory(word) => Some(memory[word]),
            Self::Length => Some(length),
            Self::At(offset, size) => number(bytes, offset, size),
            Self::Behind(offset, size) => number(bytes, index.checked_add(offset)?, size),
            Self::Header(offset) => number(bytes, offset, 1).map(|first| (first & 0xf) * 4),
        }
    }
}

impl Calculation {
    fn read(code: u16) -> Option<Self> {
        Some(match code {
            0x00 => Self::Add,
            0x10 => Self::Subtract,
            0x20 => Self::Multiply,
            0x30 => Self::Divide,
            0x40 => Self::Or,
            0x50 => Self::And,
            0x60 => Self::ShiftLeft,
            0x70 => Self::ShiftRight,
            0x90 => Self::Remainder,
            0xa0 => Self::Xor,
            _ => return None,
        })
    }

    #[inline]
    fn of(self, a: u32, b: u32) -> Option<u32> {
        match self {
            Self::Add => Some(a.wrapping_add(b)),
            Self::Subtract => Some(a.wrapping_sub(b)),
            Self::Multiply => Some(a.wrapping_mul(b)),
            Self::Divide => a.checked_div(b),
            Self::Remainder => a.checked_rem(b),
            Self::Or => Some(a | b),
            Self::And => Some(a & b),
            Self::Xor => Some(a ^ b),
            // Nothing is left of a number that is moved by all of its bits.
            Self::ShiftLeft => Some(a.checked_shl(b).unwrap_or(0)),
            Self::ShiftRight => Some(a.checked_shr(b).unwrap_or(0)),
        }
    }
}

impl Test {
    fn read(code: u16) -> Option<Self> {
        Some(match code {
            0x10 => Self::Equal,
            0x20 => Self::Greater,
            0x30 => Self::AtLeast,
            0x40 => Self::AnyBit,
            _ => return None,
        })
    }

    #[inline]
    fn is(self, a: u32, b: u32) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Greater => a > b,
            Self::AtLeast => a >= b,
            Self::AnyBit => a & b != 0,
        }
    }
}

/// In network order.
#[inline]
fn number(bytes: &[u8], offset: u32, size: usize) -> Option<u32> {
    let bytes = bytes.get(offset as usize..)?.get(..size)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(lines: &[(u16, u8, u8, u32)]) -> Result<Program, ProgramError> {
        let instructions = lines.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k });
        Program::check(&instructions.collect::<Vec<_>>())
    }

    /// What the lines leave in the accumulator.
    fn value(lines: &[(u16, u8, u8, u32)], bytes: &[u8]) -> Option<u32> {
        program(&[lines, &[(0x16, 0, 0, 0)]].concat()).unwrap().run(bytes, 1000)
    }

    #[test]
    fn what_is_wrong_is_said() {
        let end = (0x06, 0, 0, 1);
        assert_eq!(program(&[]), Err(ProgramError::Length(0)));
        assert_eq!(program(&[end; Program::MAX + 1]), Err(ProgramError::Length(Program::MAX + 1)));
        assert!(program(&[end; Program::MAX]).is_ok());
        assert_eq!(program(&[end, (0x00, 0, 0, 1)]), Err(ProgramError::End));
        for code in [0x08, 0x10, 0x0e, 0x38, 0xb4, 0x55, 0x105, 0x120, 0xffff] {
            assert_eq!(program(&[end, (code, 0, 0, 1), end]), Err(ProgramError::Code { at: 1, code }));
        }
        assert_eq!(program(&[(0x05, 0, 0, 1), end]), Err(ProgramError::Jump { at: 0, to: 2, len: 2 }));
        assert_eq!(
            program(&[end, (0x05, 0, 0, u32::MAX), end]),
            Err(ProgramError::Jump { at: 1, to: 1, len: 3 })
        );
        assert_eq!(program(&[(0x15, 0, 1, 0), end]), Err(ProgramError::Jump { at: 0, to: 2, len: 2 }));
        for code in [0x60, 0x61, 0x02, 0x03] {
            assert_eq!(program(&[(code, 0, 0, 16), end]), Err(ProgramError::Memory { at: 0, word: 16 }));
        }
        for code in [0x34, 0x94] {
            assert_eq!(program(&[(code, 0, 0, 0), end]), Err(ProgramError::Division { at: 0 }));
        }
    }

    #[test]
    fn bytes_of_the_packet_and_beyond() {
        let bytes = [0x45, 1, 2, 3, 4];
        assert_eq!(value(&[(0x20, 0, 0, 1)], &bytes), Some(0x0102_0304));
        assert_eq!(value(&[(0x20, 0, 0, 2)], &bytes), None);
        assert_eq!(value(&[(0x28, 0, 0, 3)], &bytes), Some(0x0304));
        assert_eq!(value(&[(0x30, 0, 0, u32::MAX)], &bytes), None);
        assert_eq!(value(&[(0x80, 0, 0, 0)], &bytes), Some(1000));
        assert_eq!(value(&[(0xb1, 0, 0, 0), (0x87, 0, 0, 0)], &bytes), Some(20));
        assert_eq!(value(&[(0x01, 0, 0, 3), (0x50, 0, 0, 1)], &bytes), Some(4));
        assert_eq!(value(&[(0x01, 0, 0, 3), (0x50, 0, 0, u32::MAX)], &bytes), None);
    }

    #[test]
    fn numbers_are_what_the_machine_makes_of_them() {
        let of = |code, a, b| value(&[(0x00, 0, 0, a), (code, 0, 0, b)], &[]);
        assert_eq!(of(0x04, u32::MAX, 2), Some(1));
        assert_eq!(of(0x14, 1, 2), Some(u32::MAX));
        assert_eq!(of(0x24, 1 << 31, 2), Some(0));
        assert_eq!((of(0x34, 7, 2), of(0x94, 7, 2)), (Some(3), Some(1)));
        assert_eq!((of(0x44, 5, 2), of(0x54, 5, 4), of(0xa4, 5, 4)), (Some(7), Some(4), Some(1)));
        assert_eq!(
            (of(0x64, 1, 31), of(0x64, 1, 32), of(0x74, 8, 3), of(0x74, 8, 99)),
            (Some(1 << 31), Some(0), Some(1), Some(0))
        );
        assert_eq!(of(0x84, 1, 0), Some(u32::MAX));
        // The index is zero.
        assert_eq!((of(0x3c, 7, 9), of(0x9c, 7, 9), of(0x0c, 7, 9)), (None, None, Some(7)));
        let stored = [
            (0x00, 0, 0, 9),
            (0x02, 0, 0, 15),
            (0x00, 0, 0, 1),
            (0x07, 0, 0, 0),
            (0x03, 0, 0, 2),
            (0x60, 0, 0, 15),
        ];
        assert_eq!(value(&stored, &[]), Some(9));
        assert_eq!(value(&[&stored[..], &[(0x61, 0, 0, 2), (0x87, 0, 0, 0)]].concat(), &[]), Some(1));
    }

    #[test]
    fn comparisons_lead_on() {
        let is = |code, a, b| {
            let lines = [(0x00, 0, 0, a), (code, 1, 0, b), (0x06, 0, 0, 0), (0x06, 0, 0, 1)];
            program(&lines).unwrap().accepts(&[], 0)
        };
        assert!(is(0x15, 4, 4) && !is(0x15, 4, 5));
        assert!(is(0x25, 5, 4) && !is(0x25, 4, 4));
        assert!(is(0x35, 4, 4) && !is(0x35, 3, 4));
        assert!(is(0x45, 6, 3) && !is(0x45, 6, 9));
        assert!(is(0x1d, 0, 9) && !is(0x1d, 1, 1));
        assert!(program(&[(0x05, 0, 0, 1), (0x06, 0, 0, 0), (0x06, 0, 0, 1)]).unwrap().accepts(&[], 0));
    }
}
