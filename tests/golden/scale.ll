; ModuleID = "kernel"
target triple = "unknown-unknown-unknown"
target datalayout = ""

define void @"kernel"(ptr noalias %"args", ptr noalias %"scratch")
{
entry:
  %".4" = getelementptr i64, ptr %"args", i64 0
  %".5" = load i64, ptr %".4", align 8
  %"x.address" = inttoptr i64 %".5" to ptr
  %".6" = getelementptr i64, ptr %"args", i64 1
  %".7" = load i64, ptr %".6", align 8
  %".8" = getelementptr i64, ptr %"args", i64 2
  %".9" = load i64, ptr %".8", align 8
  %".10" = getelementptr i64, ptr %"args", i64 5
  %".11" = load i64, ptr %".10", align 8
  %"out.address" = inttoptr i64 %".11" to ptr
  %".12" = getelementptr i64, ptr %"args", i64 6
  %".13" = load i64, ptr %".12", align 8
  %".14" = getelementptr i64, ptr %"args", i64 7
  %".15" = load i64, ptr %".14", align 8
  %".16" = getelementptr i64, ptr %"args", i64 10
  %".17" = load i64, ptr %".16", align 8
  %".18" = trunc i64 %".17" to i16
  %k1 = bitcast i16 %".18" to half
  %k2 = fpext half %k1 to float
  %".19" = icmp ne i64 %".9", 2
  %".20" = ptrtoint ptr %"x.address" to i64
  %".21" = add i64 %".20", 2
  %".22" = sub i64 2, 1
  %".23" = mul i64 %".7", %".22"
  %".24" = icmp slt i64 %".23", 0
  %".25" = select  i1 %".24", i64 %".23", i64 0
  %".26" = add i64 %".20", %".25"
  %".27" = select  i1 %".24", i64 0, i64 %".23"
  %".28" = add i64 %".21", %".27"
  %".29" = sub i64 20, 1
  %".30" = mul i64 %".9", %".29"
  %".31" = icmp slt i64 %".30", 0
  %".32" = select  i1 %".31", i64 %".30", i64 0
  %".33" = add i64 %".26", %".32"
  %".34" = select  i1 %".31", i64 0, i64 %".30"
  %".35" = add i64 %".28", %".34"
  %".36" = ptrtoint ptr %"out.address" to i64
  %".37" = add i64 %".36", 2
  %".38" = sub i64 2, 1
  %".39" = mul i64 %".13", %".38"
  %".40" = icmp slt i64 %".39", 0
  %".41" = select  i1 %".40", i64 %".39", i64 0
  %".42" = add i64 %".36", %".41"
  %".43" = select  i1 %".40", i64 0, i64 %".39"
  %".44" = add i64 %".37", %".43"
  %".45" = sub i64 20, 1
  %".46" = mul i64 %".15", %".45"
  %".47" = icmp slt i64 %".46", 0
  %".48" = select  i1 %".47", i64 %".46", i64 0
  %".49" = add i64 %".42", %".48"
  %".50" = select  i1 %".47", i64 0, i64 %".46"
  %".51" = add i64 %".44", %".50"
  %".52" = icmp ult i64 %".33", %".51"
  %".53" = icmp ult i64 %".49", %".35"
  %".54" = and i1 %".52", %".53"
  %".55" = icmp eq ptr %"x.address", %"out.address"
  %".56" = icmp eq i64 %".7", %".13"
  %".57" = and i1 %".55", %".56"
  %".58" = icmp eq i64 %".9", %".15"
  %".59" = and i1 %".57", %".58"
  %".60" = xor i1 %".59", -1
  %".61" = and i1 %".54", %".60"
  %".62" = or i1 %".19", %".61"
  %".63" = getelementptr i8, ptr %"scratch", i64 0
  br i1 %".62", label %"rare", label %"chosen", !prof !0
chosen:
  %".67" = phi  ptr [%".63", %"rare"], [%"x.address", %"entry"]
  %".68" = phi  i64 [40, %"rare"], [%".7", %"entry"]
  %".69" = phi  i64 [2, %"rare"], [%".9", %"entry"]
  %".70" = icmp ne i64 %".15", 2
  %".71" = getelementptr i8, ptr %"scratch", i64 192
  br i1 %".70", label %"rare.1", label %"chosen.1", !prof !0
rare:
  call void @"pto_wsp_copy_2"(ptr %".63", i64 40, i64 2, ptr %"x.address", i64 %".7", i64 %".9", i64 2, i64 20)
  br label %"chosen"
chosen.1:
  %".74" = phi  ptr [%".71", %"rare.1"], [%"out.address", %"chosen"]
  %".75" = phi  i64 [40, %"rare.1"], [%".13", %"chosen"]
  %".76" = phi  i64 [2, %"rare.1"], [%".15", %"chosen"]
  br label %"loop"
rare.1:
  br label %"chosen.1"
loop:
  %".78" = phi  i64 [0, %"chosen.1"], [%".103", %"body"]
  %".79" = icmp slt i64 %".78", 2
  br i1 %".79", label %"body", label %"done"
body:
  %".81" = mul i64 %".78", %".68"
  %".82" = getelementptr i8, ptr %".67", i64 %".81"
  %".83" = getelementptr i16, ptr %".82", i64 0
  %".84" = load <16 x i16>, ptr %".83", align 2
  %k3 = bitcast <16 x i16> %".84" to <16 x half>
  %k4 = fpext <16 x half> %k3 to <16 x float>
  %".85" = insertelement <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, float %k2, i32 0
  %".86" = shufflevector <16 x float> %".85", <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, <16 x i32> <i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0>
  %k5 = fmul <16 x float> %k4, %".86"
  %k6 = fptrunc <16 x float> %k5 to <16 x half>
  %k7 = bitcast <16 x half> %k6 to <16 x i16>
  %k8 = bitcast <16 x i16> %k7 to <16 x half>
  %k9 = fpext <16 x half> %k8 to <16 x float>
  %".87" = mul i64 %".78", %".75"
  %".88" = getelementptr i8, ptr %".74", i64 %".87"
  %".89" = getelementptr i16, ptr %".88", i64 0
  %k10 = fptrunc <16 x float> %k9 to <16 x half>
  %k11 = bitcast <16 x half> %k10 to <16 x i16>
  store <16 x i16> %k11, ptr %".89", align 2
  %".91" = mul i64 %".78", %".68"
  %".92" = getelementptr i8, ptr %".67", i64 %".91"
  %".93" = getelementptr i16, ptr %".92", i64 16
  %".94" = call <16 x i16> @"llvm.masked.load.v16i16.p0"(ptr %".93", i32 2, <16 x i1> <i1 1, i1 1, i1 1, i1 1, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0>, <16 x i16> zeroinitializer)
  %k12 = bitcast <16 x i16> %".94" to <16 x half>
  %k13 = fpext <16 x half> %k12 to <16 x float>
  %".95" = insertelement <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, float %k2, i32 0
  %".96" = shufflevector <16 x float> %".95", <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, <16 x i32> <i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0>
  %k14 = fmul <16 x float> %k13, %".96"
  %k15 = fptrunc <16 x float> %k14 to <16 x half>
  %k16 = bitcast <16 x half> %k15 to <16 x i16>
  %k17 = bitcast <16 x i16> %k16 to <16 x half>
  %k18 = fpext <16 x half> %k17 to <16 x float>
  %".97" = mul i64 %".78", %".75"
  %".98" = getelementptr i8, ptr %".74", i64 %".97"
  %".99" = getelementptr i16, ptr %".98", i64 16
  %k19 = fptrunc <16 x float> %k18 to <16 x half>
  %k20 = bitcast <16 x half> %k19 to <16 x i16>
  %".100" = getelementptr i16, ptr %".99", i64 0
  %".101" = shufflevector <16 x i16> %k20, <16 x i16> %k20, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  store <4 x i16> %".101", ptr %".100", align 2
  %".103" = add nsw nuw i64 %".78", 1
  br label %"loop"
done:
  br i1 %".70", label %"done.if", label %"done.endif", !prof !1
done.if:
  %".106" = getelementptr i8, ptr %"scratch", i64 192
  call void @"pto_wsp_copy_2"(ptr %"out.address", i64 %".13", i64 %".15", ptr %".106", i64 40, i64 2, i64 2, i64 20)
  br label %"done.endif"
done.endif:
  ret void
}

declare void @"pto_wsp_copy_2"(ptr %".1", i64 %".2", i64 %".3", ptr %".4", i64 %".5", i64 %".6", i64 %".7", i64 %".8")

declare <16 x i16> @"llvm.masked.load.v16i16.p0"(ptr %".1", i32 %".2", <16 x i1> %".3", <16 x i16> %".4")

!0 = !{ !"branch_weights", i32 1, i32 1048576 }
!1 = !{ !"branch_weights", i32 1, i32 99 }
define i64 @"kernel.scratch"() {
  ret i64 384
}
