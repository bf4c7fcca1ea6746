//! scratch
use exsearch_run::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let config = RunConfig::open(args[1].as_ref()).unwrap_or_else(|e| panic!("{e}"));
    let t0 = std::time::Instant::now();
    let mut last = 0;
    let r = run(&config, args[2].as_ref(), &mut |event| match event {
        Event::Part { stage, part } => eprintln!("[{:6.1}] {stage}: {part}", t0.elapsed().as_secs_f64()),
        Event::Sampling(p) => {
            if p.n_done == p.n_total || p.n_done >= last + 25 || p.n_done < last {
                last = p.n_done;
                eprintln!("[{:6.1}]   {}/{}", t0.elapsed().as_secs_f64(), p.n_done, p.n_total)
            }
        }
        Event::Step(s) => {
            if s.step % 4 == 0 {
                eprintln!(
                    "[{:6.1}]   step {}/{} loss {:.4} nll {:.4} gn {:.2} lr {:.1e} tok {}",
                    t0.elapsed().as_secs_f64(),
                    s.step,
                    s.n_steps,
                    s.loss,
                    s.nll,
                    s.grad_norm,
                    s.learning_rate,
                    s.n_tokens
                )
            }
        }
        Event::Warmup(s) => eprintln!("{s:?}"),
        Event::Weighed(d, p) => eprintln!("{d:?}\n{p:?}"),
        Event::Evaluated { stage, set, report } => eprintln!(
            "[{:6.1}] {stage} {set}: EM {:.3} F1 {:.3} hops {:?} outcomes {:?} steps {:.2} tokens {:.0}",
            t0.elapsed().as_secs_f64(),
            report.scores.exact_match.mean,
            report.scores.f1.mean,
            report
                .by_hops
                .iter()
                .map(|g| (g.label.clone(), g.n_questions, (g.scores.exact_match.mean * 100.0).round()))
                .collect::<Vec<_>>(),
            report.outcomes,
            report.effort.mean_steps,
            report.effort.mean_tokens
        ),
        Event::StoppedEarly { .. } => eprintln!("stopped early"),
    });
    match r {
        Ok(o) => println!("{}", o.table),
        Err(e) => panic!("{e}"),
    }
}
